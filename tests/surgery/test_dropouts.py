"""Where IC layers go in networks with dropouts of their own: fifteen ends of networks, each with
the place of the IC layer written down by hand.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.utils.keras_internals import sublayers
from tests.surgery import models


def stem():
    return [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(), layers.ReLU(name="relu")]


def dropout(rate=0.5, **options):
    return layers.Dropout(rate, name="drop", **options)


def part(*stack, shape=(6, 6, 4)):
    """A model inside the model."""
    return keras.Sequential([keras.Input(shape), *stack], name="part")


def flat():
    return layers.Flatten(name="flat")


def end():
    return layers.Dense(2, name="end")


# What stands between the stem and the end, the layers after the rewriting, and the rate of the IC.
ENDS = {
    "adjacent": (lambda: [dropout()], "end_ic end", 0.5),
    "BatchNorm and dropout, the IC by hand": (
        lambda: [layers.BatchNormalization(name="bn"), dropout()],
        "end_ic end",
        0.5,
    ),
    "pooling, then dropout": (
        lambda: [layers.GlobalAveragePooling2D(name="pool"), dropout()],
        "pool end_ic end",
        0.5,
    ),
    "dropout, then Flatten": (lambda: [dropout(), flat()], "end_ic flat end", 0.5),
    "dropout, then padding": (
        lambda: [dropout(), layers.ZeroPadding2D(name="pad")],
        "end_ic pad end",
        0.5,
    ),
    "Flatten, then dropout": (lambda: [flat(), dropout()], "end_ic flat drop end", 0.0),
    "two dropouts": (
        lambda: [dropout(), layers.Dropout(0.2, name="again")],
        "end_ic drop again end",
        0.0,
    ),
    "spatial": (
        lambda: [layers.SpatialDropout2D(0.5, name="drop")],
        "end_ic drop end",
        0.0,
    ),
    "spatial, then Flatten": (
        lambda: [layers.SpatialDropout2D(0.5, name="drop"), flat()],
        "end_ic drop flat end",
        0.0,
    ),
    "Gaussian": (lambda: [layers.GaussianDropout(0.5, name="drop")], "end_ic drop end", 0.0),
    "Gaussian noise": (lambda: [layers.GaussianNoise(0.5, name="drop")], "end_ic drop end", 0.0),
    "alpha": (lambda: [layers.AlphaDropout(0.5, name="drop")], "end_ic drop end", 0.0),
    "one mask for all places": (
        lambda: [dropout(noise_shape=(None, 1, 1, 4))],
        "end_ic drop end",
        0.0,
    ),
    "dropout before a model that begins with the weight layer": (
        lambda: [dropout(), part(flat(), end())],
        "end_ic drop part/flat part/end",
        0.0,
    ),
    "dropout at the end of a model": (
        lambda: [part(dropout(), flat())],
        "part/end_ic part/drop part/flat end",
        0.0,
    ),
}
# Those that are no dropout, with more than shapes between, and several across a border.
OTHERS = {
    "dropout at rate 0": (lambda: [dropout(0.0)], "drop end_ic end", 0.05),
    "Identity": (lambda: [layers.Identity(name="same")], "same end_ic end", 0.05),
    "two dropouts before a model": (
        lambda: [dropout(), layers.Dropout(0.2, name="again"), part(flat(), end())],
        "end_ic drop again part/flat part/end",
        0.0,
    ),
    "dropout, then pooling": (
        lambda: [dropout(), layers.GlobalAveragePooling2D(name="pool")],
        "drop pool end_ic end",
        0.05,
    ),
}


def model_of(case):
    make, expected, _ = {**ENDS, **OTHERS}[case]
    stack = make() if expected.endswith("/end") else [*make(), end()]
    return models.randomize(keras.Sequential([keras.Input((8, 8, 3)), *stem(), *stack]))


def paths(model):
    """The layers in the order in which they run, those in the model inside with its name."""
    return [
        path
        for layer in model.layers
        for path in (
            [f"{layer.name}/{each.name}" for each in layer.layers]
            if isinstance(layer, keras.Model)
            else [layer.name]
        )
    ]


@pytest.mark.parametrize("case", [*ENDS, *OTHERS])
def test_batch_norm_goes_before_a_dropout_that_is_there(case):
    model, (_, expected, rate) = model_of(case), {**ENDS, **OTHERS}[case]
    plan, new = keras_ic.plan(model), keras_ic.rewrite(model, weights="preserve")
    assert paths(new) == ["conv", "relu", *expected.split()]
    (ic,) = models.ics(new)
    assert (ic.name, ic.rate) == ("end_ic", pytest.approx(rate))
    models.assert_same_function(model, new, 1e-5)
    models.assert_every_weight_layer_is_accounted_for(model, plan)
    (row,) = [change for change in plan.changes if change.kind == "ic"]
    if rate == 0.5:
        assert row.result.endswith("; takes over drop (Dropout 0.5)")
    elif rate == 0:
        assert "; before drop (" in row.result
    for made in (model, new):
        drops = any(getattr(each, "rate", getattr(each, "stddev", 0)) for each in sublayers(made))
        x = models.sample(model)
        assert models.draws(lambda x, made=made: made(x, training=True), x) == drops


@pytest.mark.parametrize(
    "case",
    ["adjacent", "Flatten, then dropout", "spatial", "Gaussian", "alpha", *list(ENDS)[-2:]],
)
def test_variance_at_inference_is_that_of_training(case):
    """After a dropout, BatchNorm would have learned a variance that inference does not have."""
    model = model_of(case)
    new = keras_ic.rewrite(model, weights="copy")
    (ic,) = models.ics(new)
    ic.momentum = 0.0
    x = np.random.default_rng(0).normal(size=(256, 8, 8, 3)).astype("float32")
    new(x, training=True)
    relu = keras.Sequential(new.layers[: new.layers.index(new.get_layer("relu")) + 1])
    read = keras.ops.convert_to_numpy(relu(x)).reshape(-1, 4)
    np.testing.assert_allclose(ic.moving_variance.numpy(), read.var(0), rtol=0.01)


def test_a_dropout_that_something_else_reads_too():
    inputs = keras.Input((8,))
    x = layers.Dropout(0.3, name="drop")(layers.Dense(4, "relu")(inputs))
    model = models.randomize(keras.Model(inputs, [layers.Dense(4, name="other")(x) + x, end()(x)]))
    new = keras_ic.rewrite(model, weights="preserve")
    assert [ic.rate for ic in models.ics(new)] == [0.3] and "drop" in paths(new)
    models.assert_same_function(model, new)


@pytest.mark.parametrize("way", ["read twice", "called twice", "read twice inside"])
def test_a_dropout_across_a_border_that_others_read_past(way):
    inputs = keras.Input((8,))
    x = dropout()(layers.Dense(4, "relu")(inputs))
    given = keras.Input((4,))
    y = layers.Dense(4, name="end")(given)
    model = keras.Model(given, y + given if way == "read twice inside" else y, name="part")
    outputs = {"read twice": lambda: model(x) + x, "called twice": lambda: model(model(x))}
    whole = models.randomize(keras.Model(inputs, outputs.get(way, lambda: model(x))()))
    new = keras_ic.rewrite(whole, weights="preserve")
    assert "end_ic" in [layer.name for layer in new.get_layer("part").layers]
    models.assert_same_function(whole, new)
    (row,) = [change for change in keras_ic.plan(whole).changes if change.kind == "ic"]
    assert "after drop (Dropout) across the border of a model" in row.result
    assert "`keras_ic.Recalibration` re-estimates it" in row.result


def test_the_rate_of_the_site_is_not_asked_where_a_dropout_says_it():
    asked = []
    stack = [*stem(), layers.Conv2D(4, 1, name="two"), layers.Dropout(0.5), end()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *stack])
    keras_ic.plan(model, lambda site: asked.append(site.layer.name) or 0.1)
    assert asked == ["two"]
