"""Where IC layers go in networks that other people write: the positions, written down by hand."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.surgery.placement import READS_INPUT
from tests.surgery import models
from tests.surgery.models import reasons


def model_of(*stack, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *stack])


def names(model):
    """The layers of the model, without the inputs."""
    return [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def stem():
    return [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(), layers.ReLU(name="relu")]


def end():
    return layers.Dense(2, name="end")


def distributions():
    """Inputs that are shares which sum to 1."""
    yield "softmax layer", lambda x: layers.Softmax()(x)
    yield "activation", lambda x: layers.Activation("softmax")(x)
    yield "fused", lambda x: layers.Dense(5, activation="softmax")(x)
    yield "op", lambda x: keras.ops.softmax(x)
    yield "reshaped", lambda x: layers.Reshape((4, -1))(layers.Softmax()(x))
    yield "permuted", lambda x: layers.Permute((2, 1))(layers.Softmax()(x))
    yield "op permuted", lambda x: keras.ops.transpose(keras.ops.softmax(x), (0, 2, 1))
    yield "dropout", lambda x: layers.Dropout(0.1)(layers.Softmax()(x))
    yield "in a model", lambda x: keras.Sequential([keras.Input((6, 4)), layers.Softmax()])(x)

    def external_attention(x):
        weights = layers.Softmax(axis=2)(x)
        return weights / (1e-9 + keras.ops.sum(weights, axis=1, keepdims=True))

    yield "external attention", external_attention


@pytest.mark.parametrize("case, make", [pytest.param(c, m, id=c) for c, m in distributions()])
def test_a_distribution_gets_no_ic(case, make):
    inputs = keras.Input((6, 3))
    x = make(layers.Dense(4, name="stem")(inputs))
    model = models.randomize(keras.Model(inputs, end()(x)))
    plan = keras_ic.plan(model)
    assert "is a softmax" in reasons(plan)["end"]
    assert not any(change.layer == "end" for change in plan.changes)


def test_what_a_distribution_weighs_is_none():
    inputs = keras.Input((6, 3))
    x = layers.Dense(4, name="stem")(inputs)
    x = keras.ops.matmul(
        layers.Softmax()(keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))), x
    )
    assert [c.layer for c in keras_ic.plan(keras.Model(inputs, end()(x))).changes] == ["end"]


def siamese():
    one, other = keras.Input((8,)), keras.Input((8,))
    tower = keras.Sequential([keras.Input((8,)), layers.Dense(4)], name="tower")
    distance = keras.ops.sum((tower(one) - tower(other)) ** 2, axis=-1, keepdims=True)
    return keras.Model([one, other], end()(distance))


SINGLE = {
    "the distance of a siamese network": siamese,
    "a saliency map": lambda: model_of(*stem(), layers.Conv2D(1, 1, name="map"), end()),
    "a series": lambda: model_of(
        layers.Conv1D(1, 1), layers.ReLU(), layers.Conv1D(2, 3, name="end"), shape=(6, 2)
    ),
}


@pytest.mark.parametrize("case", SINGLE)
def test_a_single_channel_gets_no_ic(case):
    assert "has a single channel" in reasons(keras_ic.plan(SINGLE[case]()))["end"]


def test_the_features_of_a_flattened_map_of_one_channel_are_many():
    model = model_of(*stem(), layers.Conv2D(1, 1, name="map"), layers.Flatten(name="flat"), end())
    new = keras_ic.rewrite(model)
    assert names(new)[-3:] == ["flat", "end_ic", "end"] and new.get_layer("end_ic").gamma.shape == (
        36,
    )


def tabular():
    return model_of(
        layers.BatchNormalization(name="scale"), layers.Dense(6, "relu"), end(), shape=(4,)
    )


def test_a_batch_normalization_of_the_input_stays():
    model = models.randomize(tabular())
    for weights in ("fresh", "copy", "preserve"):
        new = keras_ic.rewrite(model, weights=weights)
        assert names(new)[0] == "scale" and len(models.batch_normalizations(new)) == 1
    models.assert_same_function(model, new)
    told = reasons(keras_ic.plan(model))["scale"]
    assert "standardizes an input of the model" in told and "skip_first=False" in told
    new = keras_ic.rewrite(model, weights="preserve", skip_first=False)
    assert len(models.ics(new)) == 2 and not models.batch_normalizations(new)
    models.assert_same_function(model, new)


def test_a_part_that_another_model_feeds():
    part = model_of(
        layers.BatchNormalization(name="seam"), layers.Dense(6, name="first"), end(), shape=(4,)
    )
    assert reasons(keras_ic.plan(part))["first"] == f"no IC: {READS_INPUT}"
    rewritten = keras_ic.rewrite(part, skip_first=False)
    assert names(rewritten) == ["first_ic", "first", "end_ic", "end"]


def test_plan_error_and_docs_name_the_way_for_a_part():
    class Whole(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"made of \(with `skip_first=False`") as raised:
        keras_ic.rewrite(Whole())
    docs = pathlib.Path(__file__).parents[2] / "docs" / "rewriting.md"
    for text in (str(raised.value), READS_INPUT, docs.read_text(encoding="utf-8")):
        assert "another" in text and "`skip_first=False`" in text


def test_a_part_learns_as_before_from_features_of_other_scales():
    random = np.random.default_rng(0)
    features = random.normal(1.0, 1.0, (512, 8))
    y = np.tanh(features @ random.normal(size=(8, 4)))
    x = (features * np.geomspace(1, 300, 8)).astype("float32")

    def loss(model):
        keras.utils.set_random_seed(0)
        model = keras.models.clone_model(model)
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        return model.fit(x, y, batch_size=64, epochs=8, verbose=0).history["loss"][-1]

    def first():
        return layers.Dense(32, "relu", name="first")

    given = model_of(layers.BatchNormalization(), first(), layers.Dense(4), shape=(8,))
    without = model_of(first(), keras_ic.IC(0.0), layers.Dense(4), shape=(8,))
    expected = loss(given)
    assert loss(without) > 1.8 * expected
    assert loss(keras_ic.rewrite(given, 0.0)) < 1.3 * expected
    assert loss(keras_ic.rewrite(given, 0.0, skip_first=False)) < 1.3 * expected


def test_indices_get_no_ic_ever():
    for dtype in ("int32", "float32"):
        model = keras.Sequential(
            [keras.Input((5,), dtype=dtype), layers.Embedding(9, 4, name="embedding"), end()]
        )
        plan = keras_ic.plan(model, skip_first=False, weight_layers=(layers.Embedding,))
        assert "no IC" in reasons(plan)["embedding"]
        assert [change.layer for change in plan.changes] == ["end"]


@pytest.mark.parametrize("constraint", ["kernel_constraint", "bias_constraint"])
def test_weights_that_a_constraint_holds_stay(constraint):
    class Small(keras.constraints.Constraint):
        def __call__(self, w):
            return keras.ops.clip(w, -0.01, 0.01)

    def conv(name):
        return layers.Conv2D(4, 1, name=name, **{constraint: Small()})

    stack = [conv("one"), layers.BatchNormalization(name="bn"), layers.LeakyReLU(), conv("two")]
    model = models.randomize(model_of(*stack))
    for name in ("one", "two"):
        for weight in model.get_layer(name).weights:
            weight.assign(Small()(weight))
    new = keras_ic.rewrite(model, weights="preserve")
    models.assert_same_function(model, new, 1e-5)
    for name in ("one", "two"):
        for weight in new.get_layer(name).weights:
            assert np.abs(weight.numpy()).max() <= 0.0101
    (row,) = [c for c in keras_ic.plan(model, weights="preserve").changes if c.layer == "bn"]
    assert row.result.startswith("becomes bn_affine")
