"""A network that is compiled in a second, under the name `Tiny` among those of keras.applications;
as a program, the command line with it.
"""

import sys

import keras
from keras import layers


def tiny(weights=None, input_shape=None, classes=1000, classifier_activation="softmax"):
    inputs = x = keras.Input(input_shape)
    for index, filters in enumerate((8, 16, 16)):
        x = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(layers.BatchNormalization(name=f"bn{index}")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(
        inputs,
        layers.Dense(classes, activation=classifier_activation, name="classifier")(x),
        name="tiny",
    )


if __name__ == "__main__":
    keras.applications.Tiny = tiny
    from keras_ic.cli import main

    sys.exit(main())
