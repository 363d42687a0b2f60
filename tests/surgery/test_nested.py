"""Models inside models, shared ones, and models whose layers others call too."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from tests.surgery import models
from tests.surgery.models import reasons, rows


def test_models_that_share_a_trunk_share_its_ic_layer():
    inputs = keras.Input((8,))
    x = layers.Dense(5, activation="relu", name="second")(
        layers.Dense(6, activation="relu", name="first")(inputs)
    )
    heads = (
        keras.Model(inputs, layers.Dense(4, name="head")(x), name="full"),
        keras.Model(inputs, x, name="features"),
    )
    given = keras.Input((8,))
    model = models.randomize(keras.Model(given, [head(given) for head in heads]))
    plan, new = (
        keras_ic.plan(model, weights="preserve"),
        keras_ic.rewrite(model, weights="preserve"),
    )
    assert sorted(ic.name for ic in models.ics(new)) == ["head_ic", "second_ic"]
    assert new.count_params() == plan.parameters[1]
    models.assert_same_function(model, new)


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
def test_a_nested_model_that_is_handed_more_than_it_asks_for():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    x = layers.BatchNormalization()(layers.Dense(3)(layers.Concatenate()([a, b])))
    first, second = keras.Input((4,)), keras.Input((4,))
    keyed = keras.Model({"a": a, "b": b}, layers.Dense(3, name="end")(x), name="keyed")
    listed = keras.Model([a, b], layers.Dense(3, name="other_end")(x), name="listed")
    model = keras.Model(
        [first, second], [inner({"c": first, "a": first, "b": second}) for inner in (keyed, listed)]
    )
    models.randomize(model)
    new = keras_ic.rewrite(model, weights="preserve")
    assert {ic.name for ic in models.ics(new)} == {"end_ic"}  # Both read the same tensor.
    x = models.sample(model)
    for made in (new, keras_ic.fold(model)):
        for expected, actual in zip(models.outputs(model, x), models.outputs(made, x), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def video(trainable=True):
    """A model of frames at each step of a sequence: the commonest form of a video network."""
    frame = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Conv2D(4, 3, name="conv2"),
            layers.GlobalAveragePooling2D(name="pool"),
        ],
        name="frame",
    )
    frame.get_layer("conv2").trainable = trainable
    inputs = keras.Input((5, 8, 8, 3))
    x = layers.TimeDistributed(frame, name="timed")(inputs)
    return models.randomize(keras.Model(inputs, layers.Dense(2, name="end")(layers.GRU(4)(x))))


def test_a_model_inside_time_distributed():
    model = video(trainable=False)
    unchanged = models.Unchanged(model)
    plan = keras_ic.plan(model, weights="preserve")
    new = keras_ic.rewrite(model, weights="preserve")
    unchanged.check()
    models.assert_same_function(model, new)
    assert new.count_params() == plan.parameters[1]
    frame = new.get_layer("timed").layer
    assert [layer.name for layer in frame.layers] == ["conv1", "relu", "conv2_ic", "conv2", "pool"]
    assert not frame.get_layer("conv2").trainable and frame.get_layer("conv1").trainable
    changed = {change.layer: change.result for change in plan.changes}
    assert changed["timed/bn"] == "folded into conv1"
    assert plan.flops[0] > 5 * 2 * 6 * 6 * 4 * 27  # Five frames.

    new = keras_ic.rewrite(video(), weights="preserve")
    frame = new.get_layer("timed").layer
    new.compile("sgd", "mse", jit_compile=False)
    before = frame.get_layer("conv2_ic").moving_mean.numpy()
    x = models.sample(model, batch=4)
    assert np.isfinite(new.train_on_batch(x, np.zeros((4, 2))))
    assert np.abs(frame.get_layer("conv2_ic").moving_mean.numpy() - before).max() > 0

    folded = keras_ic.fold(new)
    models.assert_same_function(new, folded, 1e-5)
    assert not models.ics(folded)


def test_shared_layers_and_shared_nested_models_stay_shared():
    inner = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(6, use_bias=False, name="d1"),
            layers.BatchNormalization(),
            layers.ReLU(),
        ],
        name="inner",
    )
    shared = layers.Dense(6, name="shared")
    inputs = keras.Input((6,))
    x = shared(inputs)
    y = inner(inner(shared(keras.ops.relu(x))) + x)
    model = models.randomize(keras.Model(inputs, [y, x]))
    unchanged = models.Unchanged(model)
    new = keras_ic.rewrite(model, weights="preserve")
    unchanged.check()
    models.assert_same_function(model, new)
    assert len(
        [layer for layer in new.layers if layer.name == "inner"]
    ) == 1 and not models.batch_normalizations(new)
    assert sum(layer.name == "d1" for layer in new.get_layer("inner").layers) == 1


def test_inputs_that_are_intermediate_tensors():
    inputs = keras.Input((8, 8, 3))
    middle = layers.Conv2D(4, 3)(inputs)
    end = layers.Conv2D(2, 3, name="end")(
        layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, name="first")(middle)))
    )
    model = models.randomize(keras.Model(middle, end))
    unchanged = models.Unchanged(model)
    new = keras_ic.rewrite(model, weights="preserve")
    unchanged.check()
    models.assert_same_function(model, new)
    assert [ic.name for ic in models.ics(new)] == ["end_ic"]


def test_a_layer_with_calls_in_other_models():
    inputs = keras.Input((6,))
    first, normalization, second = layers.Dense(6), layers.BatchNormalization(), layers.Dense(2)
    model = keras.Model(inputs, second(normalization(first(inputs))))
    other = keras.Input((6,))
    keras.Model(other, first(normalization(first(other))))
    models.randomize(model)
    new = keras_ic.rewrite(model, weights="preserve")
    models.assert_same_function(model, new)
    assert not models.batch_normalizations(new)
    # Their calls elsewhere keep neither layer from taking it up.
    assert any(
        change.result == f"folded into {first.name}"
        for change in keras_ic.plan(model, weights="preserve").changes
    )


def test_bias_repair_across_the_borders_of_models():
    def bare(name):
        return layers.Dense(4, use_bias=False, name=name)

    inner = keras.Sequential(
        [keras.Input((4,)), layers.BatchNormalization(), layers.ReLU(), bare("last")], name="inner"
    )
    inputs = keras.Input((4,))
    x = inner(inner(bare("stem")(inputs)))
    model = keras.Model(
        inputs, layers.Dense(2, name="end")(layers.BatchNormalization(name="outer")(x))
    )
    plan = keras_ic.plan(model)
    assert rows(plan, "bias") == {"stem": "gets a bias", "inner/last": "gets a bias"}
    new = keras_ic.rewrite(model, weights="copy")
    assert (
        new.count_params() == plan.parameters[1]
        and new.get_layer("inner").get_layer("last").use_bias
    )


def test_a_model_that_is_called_in_training_stays():
    stack = [
        layers.Dense(4, name="one"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Dense(4, name="two"),
    ]
    inner = keras.Sequential([keras.Input((4,)), *stack], name="inner")
    inputs = keras.Input((4,))
    for calls in ([True], [None, True], [True, False]):
        x = layers.Dense(4, name="stem")(inputs)
        for training in calls:
            x = inner(x, training=training)
        model = models.randomize(keras.Model(inputs, layers.Dense(3, name="end")(x)))
        plan = keras_ic.plan(model, 0.0, weights="preserve")
        assert rows(plan, "ic") == {"end": "IC end_ic (rate 0) before it"}
        assert "called with training=True" in reasons(plan)["inner"]
        new = keras_ic.rewrite(model, 0.0, weights="preserve")
        assert [layer.name for layer in new.get_layer("inner").layers] == [
            layer.name for layer in inner.layers
        ]
        assert models.draws(new, models.sample(model))  # Its dropout works.
    model = keras.Model(
        inputs,
        layers.Dense(3, name="end")(inner(layers.Dense(4, name="stem")(inputs), training=False)),
    )
    assert list(rows(keras_ic.plan(model), "ic")) == ["inner/one", "inner/two", "end"]


def test_names_are_unique_over_nested_and_repeated_models():
    def block(name):
        return keras.Sequential(
            [keras.Input((6,)), layers.Dense(6, name="dense", activation="relu")], name=name
        )

    x = inputs = keras.Input((6,))
    for layer in (
        layers.Dense(6, name="dense"),
        layers.Identity(name="dense_ic"),
        block("a"),
        block("b"),
    ):
        x = layer(x)
    plan = keras_ic.plan(keras.Model(inputs, x))
    assert [change.name for change in plan.changes] == ["dense_ic_1", "dense_ic_2"]
