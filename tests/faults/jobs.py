"""What is killed in the middle of its work by `tests/faults/test_kills.py`, each in a process
forked from one that has imported all it needs.
"""

import itertools
import json
import pathlib

import keras
import numpy as np

import keras_ic
from keras_ic import saving, training

IMAGES = np.random.default_rng(0).normal(2.0, 3.0, size=(200, 8, 8, 1)).astype("float32")


def train(folder):
    configuration = training.TrainingConfig(
        data="digits", model="small", batch=32, train_size=64, epochs=4, rate=0.1, optimizer="sgd"
    )
    training.run(configuration, folder, checkpoint_steps=1, verbose=0)


def tune(folder):
    from keras_ic.tuning import SearchSpace, search

    recipe = training.TrainingConfig(
        data="digits", model="small", batch=32, train_size=64, epochs=1, validation=0.25
    )
    search(recipe, folder, SearchSpace(depths="uniform"), tuner="random", trials=2, verbose=0)


def network():
    """A small network whose weights follow from a seed."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3),
            keras_ic.IC(0.1),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def recalibrate(folder):
    """Changes a model in its own file."""
    path = pathlib.Path(folder, "model.keras")
    if not path.exists():
        saving.save_model(network(), path)
    model = saving.load_model(path)
    keras_ic.recalibrate(model, IMAGES, batch_size=10, verbose=0)
    saving.save_model(model, path)


def save(folder):
    """Saves a model over and over, each time with its number in every weight, and notes the number
    once it is saved.
    """
    model = network()
    for number in itertools.count(1):
        for weight in model.weights:
            weight.assign(np.full(weight.shape, number, "float32"))
        saving.save_model(model, pathlib.Path(folder, "model.keras"))
        with saving.replacing(pathlib.Path(folder, "saved.json")) as new:
            new.write_text(json.dumps(number))
