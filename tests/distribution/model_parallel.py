"""A convolutional and a dense IC network on one device and with their weights spread over a mesh of
2 x 2 devices: prints what each of them computed as JSON.
"""

import json
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import keras
import numpy as np
from keras import layers

import keras_ic

SHAPES = {"conv": (6, 6, 3), "dense": (12,)}


def network(kind):
    if kind == "conv":
        weighted = [
            layers.Conv2D(8, 3, activation="relu", name=f"conv{index}", padding="same")
            for index in range(2)
        ]
        last = [layers.GlobalAveragePooling2D()]
    else:
        weighted = [layers.Dense(16, activation="relu", name=f"dense{index}") for index in range(2)]
        last = []
    hidden = [
        layer
        for index, each in enumerate(weighted)
        for layer in (each, keras_ic.IC(0.2, seed=index, name=f"ic{index}"))
    ]
    stack = [keras.Input(SHAPES[kind]), *hidden, *last, layers.Dense(4, name="logits")]
    model = keras.Sequential(stack)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def spread():
    """Channels over the axis `model`: those of every hidden kernel and bias, and those of the IC
    layer that reads them.
    """
    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"))
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*conv.*/kernel"] = (None, None, None, "model")
    layout[".*dense.*/kernel"] = (None, "model")
    layout[".*(conv|dense).*/bias"] = ("model",)
    layout[".*ic.*/(gamma|beta|moving_mean|moving_variance)"] = ("model",)
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


def numbers(report):
    """All numbers of a nested structure, in a row."""
    if isinstance(report, dict):
        report = list(report.values())
    if isinstance(report, list):
        return [number for each in report for number in numbers(each)]
    return [float(report)] if isinstance(report, (int, float)) else []


def found(kind):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(32, *SHAPES[kind])).astype("float32")
    y = (x.reshape(32, -1)[:, 0] > 0).astype("int32") + 2 * (x.reshape(32, -1)[:, 1] > 0)
    model = network(kind)
    losses = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history["loss"]
    moving = [
        keras.ops.convert_to_numpy(value).tolist()
        for index in range(2)
        for value in model.get_layer(f"ic{index}").non_trainable_weights[:2]
    ]
    keras_ic.recalibrate(model, x, verbose=0)
    mean, std = keras_ic.predict_with_uncertainty(model, x, samples=3, verbose=0)
    folded = keras_ic.fold(model)
    return {
        "parts": [
            len({str(shard.index) for shard in variable.value.addressable_shards})
            for variable in model.trainable_variables
        ],
        "losses": losses,
        "moving": moving,
        "recalibrated": model.predict(x, verbose=0).tolist(),
        "folded": folded.predict(x, verbose=0).tolist(),
        "uncertain": [mean.tolist(), std.tolist()],
        "measured": numbers(keras_ic.measure(model, x, verbose=0).to_dict()),
    }


if __name__ == "__main__":
    alone = {kind: found(kind) for kind in SHAPES}
    keras.distribution.set_distribution(spread())
    print(json.dumps([alone, {kind: found(kind) for kind in SHAPES}]))
