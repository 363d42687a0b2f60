"""The table of a plan: its rows, its notes, and what it counts."""

import json

import keras
import pytest
from keras import layers

import keras_ic
from keras_ic.surgery.placement import READS_INPUT
from tests.surgery import models
from tests.surgery.models import reasons, rows


def test_plan_of_a_small_network():
    model = models.small_convolutional()
    unchanged = models.Unchanged(model)
    plan = keras_ic.plan(model, 0.1)
    assert rows(plan, "ic") == {
        "conv2": "IC conv2_ic (rate 0.1) before it",
        "dense": "IC dense_ic (rate 0.1) before it",
    }
    assert rows(plan, "normalization") == {"bn1": "removed", "bn2": "removed"}
    assert rows(plan, "bias") == {"conv1": "gets a bias", "conv2": "gets a bias"}
    assert reasons(plan) == {"conv1": f"no IC: {READS_INPUT}"}
    assert json.loads(json.dumps(plan.to_dict()))["parameters"] == {
        "before": model.count_params(),
        "after": keras_ic.rewrite(model).count_params(),
    }
    unchanged.check()


def test_plan_prints_every_row():
    plan = keras_ic.plan(models.small_convolutional())
    shown = str(plan)
    assert all(change.layer in shown and change.result in shown for change in plan.changes)
    assert all(skip.layer in shown and skip.reason in shown for skip in plan.skipped)


def test_flops_count_multiplications_and_additions():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, padding="same"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    convolution, dense = 8 * 8 * 4 * (2 * 27 + 1), 5 * (2 * 256 + 1)
    assert keras_ic.plan(model).flops == (convolution + dense, convolution + dense + 2 * 256)


@pytest.mark.parametrize(
    ("layer", "flops"),
    [
        (layers.Conv2D(6, 3, groups=2, use_bias=False), 6 * 6 * 6 * 2 * 9 * 2),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), 6 * 6 * 8 * 2 * 9),
        (layers.SeparableConv2D(5, 3, use_bias=False), 6 * 6 * (4 * 2 * 9 + 5 * 2 * 4)),
        (layers.Conv2DTranspose(5, 3, strides=2, use_bias=False), 8 * 8 * 4 * 2 * 9 * 5),
        (layers.EinsumDense("abcd,de->abce", (8, 8, 7)), 8 * 8 * 7 * 2 * 4),
        (layers.TimeDistributed(layers.Dense(3, use_bias=False)), 8 * 8 * 3 * 2 * 4),
    ],
)
def test_flops_of_a_layer(layer, flops):
    model = keras.Sequential([keras.Input((8, 8, 4)), layer])
    assert keras_ic.plan(model).flops[0] == flops


def test_flops_say_where_they_are_not_all():
    cases = {
        False: [layers.LSTM(3), layers.MultiHeadAttention(1, 2), keras.ops.matmul],
        True: [layers.Dense(3), layers.Embedding(3, 2), layers.ReLU(), layers.BatchNormalization()],
    }
    for exact, made in cases.items():
        for layer in made:
            inputs = keras.Input((4, 4))
            x = layers.Dense(4)(inputs)
            two = isinstance(layer, layers.MultiHeadAttention) or layer is keras.ops.matmul
            plan = keras_ic.plan(keras.Model(inputs, layer(x, x) if two else layer(x)))
            assert plan.is_flops_exact == exact == plan.to_dict()["flops"]["exact"], layer
            assert (" at least " in str(plan)) != exact
    inputs = keras.Input((None, None, 3))
    plan = keras_ic.plan(keras.Model(inputs, layers.Conv2D(3, 3)(inputs)))
    assert not plan.is_flops_exact


def test_notes_on_networks_without_batch_norm():
    def plan_of(*stack):
        return keras_ic.plan(keras.Sequential([keras.Input((4,)), *stack]))

    (note,) = plan_of(layers.Dense(4), layers.Dense(2)).notes
    assert "no normalization" in note and "skip=" in note
    (note,) = plan_of(
        layers.Dense(4), layers.LayerNormalization(name="ln"), layers.Dense(2, name="end")
    ).notes
    assert "after ln" in note and "before end" in note
    bn = plan_of(layers.Dense(4), layers.BatchNormalization(), layers.Dense(2))
    assert not bn.notes and str(bn).count("\n") == str(bn).rstrip().count("\n")


def test_size_of_a_new_bias():
    # What leaves has as many channels as there are biases.
    for equation, shape, axis in (
        ("abc,cd->adb", (6, 5), 1),
        ("abc,cd->abd", (5, 6), -1),
        ("ab...,bc->ac...", (6, 3), 1),
    ):
        stack = [
            layers.EinsumDense(equation, shape, name="one"),
            layers.BatchNormalization(axis=axis),
            layers.ReLU(),
            layers.Dense(2),
        ]
        model = keras.Sequential([keras.Input((5, 3)), *stack])
        plan = keras_ic.plan(model)
        assert rows(plan, "bias") == {"one": "gets a bias"}
        assert keras_ic.rewrite(model).count_params() == plan.parameters[1], equation
