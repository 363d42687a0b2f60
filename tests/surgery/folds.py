"""The checks that every folding must pass."""

import keras
import numpy as np
from keras import layers

import keras_ic
from keras_ic.surgery import plan_fold
from keras_ic.utils.keras_internals import sublayers
from tests.surgery import models


def kinds(model):
    return {type(layer) for layer in sublayers(model)}


def results(model):
    return {change.layer: change.result for change in plan_fold(model).changes}


def folded(model, negative=0.0, tolerance=1e-5, seed=1):
    """The folded model, with everything that holds for all of them checked."""
    scatter(model, seed, negative, 0)
    unchanged = models.Unchanged(model)
    plan = plan_fold(model)
    new = keras_ic.fold(model)
    unchanged.check()
    models.assert_same_function(model, new, tolerance)
    assert (
        new.count_params() == plan.parameters[1]
        and type(new) is type(model)
        and new.name == model.name
    )
    assert not models.ics(new) and not models.batch_normalizations(new)
    return new


def scatter(model, seed, negative, zeros):
    """Every IC layer and BatchNormalization far from its default, some scales below 0 or 0."""
    random = np.random.default_rng(seed)
    models.randomize(model, seed)
    for layer in sublayers(model):
        if isinstance(layer, (keras_ic.IC, keras.layers.BatchNormalization)):
            for weight in layer.weights:
                if weight.name in ("gamma", "moving_variance"):
                    values = random.uniform(0.5, 2.0, weight.shape)
                    if weight.name == "gamma":
                        values *= np.where(random.random(values.shape) < negative, -1, 1) * (
                            random.random(values.shape) >= zeros
                        )
                else:
                    values = random.normal(0.0, 0.5, weight.shape)
                weight.assign(values)
    return model


def residual():
    inputs = keras.Input((8, 8, 3), name="images")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for block in range(2):
        y = layers.Conv2D(8, 3, padding="same", name=f"a{block}")(
            keras_ic.IC(name=f"ic_a{block}")(layers.ReLU(name=f"relu_a{block}")(x))
        )
        y = layers.Conv2D(8, 3, padding="same", name=f"b{block}")(
            keras_ic.IC(name=f"ic_b{block}")(layers.ReLU(name=f"relu_b{block}")(y))
        )
        x = layers.Add(name=f"add{block}")([x, y])
    x = keras_ic.IC(name="ic_end")(
        layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu_end")(x))
    )
    return keras.Model(inputs, layers.Dense(4, name="end")(x), name="residual")
