"""Models in small, and the checks that every rewriting must pass."""

import os

import keras
import numpy as np
from keras import layers

import keras_ic
from keras_ic.surgery.graph import read
from keras_ic.surgery.layer_traits import (
    WEIGHT_LAYERS,
    is_identity_at_inference,
    is_shape_step,
    unwrap,
)
from keras_ic.utils.keras_internals import sublayers


def randomize(model, seed=0):
    """Every weight far from its default: BatchNormalization that does something, biases that are
    not zero.
    """
    random = np.random.default_rng(seed)
    for layer in sublayers(model):
        normalization = isinstance(layer, layers.BatchNormalization)
        for weight in layer.weights if normalization or layer.__class__ in WEIGHT_LAYERS else ():
            if normalization and weight.name in ("moving_variance", "gamma"):
                weight.assign(random.uniform(0.5, 2.0, weight.shape))
            elif normalization or weight.name == "bias":
                weight.assign(random.normal(0.0, 0.5, weight.shape))
    return model


def settle(model, x, seed=0):
    """Every BatchNormalization far from its default, but with statistics in the range of its inputs
    and larger variances.

    With any others a deep network of random weights is chaotic: its float32 outputs change by a
    percent where its inputs change by a rounding error.
    """
    random = np.random.default_rng(seed)
    settings = []
    for layer in sublayers(model):
        if isinstance(layer, layers.BatchNormalization):
            settings.append((layer, "momentum", layer.momentum))
            layer.momentum = 0.0
            if layer.scale:
                layer.gamma.assign(random.uniform(0.1, 0.6, layer.gamma.shape))
            if layer.center:
                layer.beta.assign(random.normal(0.0, 0.3, layer.beta.shape))
        elif isinstance(layer, layers.Dropout):
            settings.append((layer, "rate", layer.rate))
            layer.rate = 0.0
    model(x, training=True)
    for layer, name, value in settings:
        setattr(layer, name, value)
        if name == "momentum":
            variance = layer.moving_variance.numpy()
            layer.moving_variance.assign(
                np.maximum(variance, variance.mean() / 5) * random.uniform(2, 5, variance.shape)
            )
    return model


def batch_normalizations(model):
    return [layer for layer in sublayers(model) if isinstance(layer, layers.BatchNormalization)]


def ics(model):
    return [layer for layer in sublayers(model) if isinstance(layer, keras_ic.IC)]


def sample(model, batch=3, seed=0):
    """Inputs of the structure that the model takes."""
    random = np.random.default_rng(seed)
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(
        lambda tensor: random.normal(
            size=(batch, *(size or 6 for size in tensor.shape[1:]))
        ).astype("float32"),
        structure,
    )


def outputs(model, inputs):
    """What the model computes at inference, as a list of arrays."""
    return [
        np.array(keras.ops.convert_to_numpy(keras.ops.stop_gradient(value)))
        for value in keras.tree.flatten(model(inputs, training=False))
    ]


def draws(model, inputs):
    """Whether two runs of the model differ, where nothing is said about training."""
    one, other = (
        keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(inputs))) for _ in range(2)
    )
    return not np.allclose(one, other)


def assert_same_function(given, other, tolerance=1e-4):
    for seed in range(2):
        inputs = sample(given, seed=seed)
        for expected, actual in zip(outputs(given, inputs), outputs(other, inputs), strict=True):
            assert np.all(np.isfinite(expected))
            assert np.max(np.abs(expected - actual)) <= tolerance * max(
                np.max(np.abs(expected)), 1e-3
            )


class Unchanged:
    """Notes what a model is; `check` asserts that it still is that."""

    def __init__(self, model):
        self.model = model
        self.before = self.state()

    def state(self):
        operations = {
            id(call.operation): call.operation for _, call, _ in read(self.model).walk()
        }.values()
        calls = [
            (operation.name, len(operation._inbound_nodes), len(operation._outbound_nodes))
            for operation in operations
        ]
        flags = [
            (layer.name, layer.trainable, layer.built, sorted(vars(layer)))
            for layer in sublayers(self.model)
        ]
        return (
            self.model.to_json(),
            calls,
            flags,
            [weight.numpy().tobytes() for weight in self.model.weights],
            self.model.compiled,
        )

    def check(self):
        assert self.state() == self.before


def assert_every_weight_layer_is_accounted_for(model, plan):
    told = {change.layer for change in plan.changes if change.kind == "ic"} | {
        skip.layer for skip in plan.skipped if skip.reason.startswith("no IC")
    }
    found = {
        path
        for _, call, path in read(model).walk()
        if isinstance(unwrap(call.operation), WEIGHT_LAYERS)
    }
    assert found <= told


def calls_behind_ic(model):
    """`(layer name, whether an IC layer stands before it)` of every call of a weight layer whose
    input does not come from outside its graph.
    """
    found = []
    for graph, call, _ in read(model).walk():
        if isinstance(unwrap(call.operation), WEIGHT_LAYERS):
            above = graph.producer(call.inputs[0])
            while above is not None and (is_shape_step(above) or is_identity_at_inference(above)):
                above = graph.producer(above.inputs[0])
            if above is not None and graph.child(above) is None:
                found.append((call.operation.name, isinstance(above.operation, keras_ic.IC)))
    return found


def assert_saves_and_loads(model, folder):
    path = os.path.join(folder, "model.keras")
    model.save(path)
    try:
        loaded = keras.models.load_model(path)
    except ValueError as error:
        if keras.__version__.startswith("3.12.") and "not connected" in str(error):
            # This Keras loads no model with an input that nothing is computed from, be it rewritten
            # or not.
            return
        raise
    inputs = sample(model)
    for expected, actual in zip(outputs(model, inputs), outputs(loaded, inputs), strict=True):
        np.testing.assert_array_equal(expected, actual)


def small_convolutional(name="small"):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.ReLU(name="relu1"),
            layers.ZeroPadding2D(name="pad"),
            layers.Conv2D(6, 3, use_bias=False, name="conv2"),
            layers.BatchNormalization(name="bn2"),
            layers.ReLU(name="relu2"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, name="dense"),
        ],
        name=name,
    )


def rows(plan, kind):
    return {change.layer: change.result for change in plan.changes if change.kind == kind}


def reasons(plan):
    return {skip.layer: skip.reason for skip in plan.skipped}
