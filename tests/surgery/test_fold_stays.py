"""What folding leaves where it is, with its reason; its plan, its warnings and its errors."""

import keras
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine
from keras_ic.surgery import plan_fold
from tests.surgery import models
from tests.surgery.folds import folded, kinds, results, scatter

REASONS = {
    "it pads with zeros": (layers.Conv2D(3, 3, padding="same"), "pads with zeros"),
    "its strides leave gaps": (
        layers.Conv2DTranspose(3, 3, strides=2),
        "do not all meet the same weights",
    ),
    "its bias is on another axis": (
        layers.EinsumDense("abcd,cde->abce", (None, 5, 2), bias_axes="e"),
        "whose bias does not run along",
    ),
    "it pads before": (layers.ZeroPadding2D(), "puts zeros around it"),
    "it is not linear": (layers.Activation("tanh"), "no linear layer"),
}


@pytest.mark.parametrize("case", REASONS)
def test_reasons(case):
    layer, reason = REASONS[case]
    model = keras.Sequential(
        [
            keras.Input((6, 5, 4)),
            keras_ic.IC(name="ic"),
            type(layer).from_config(layer.get_config()),
            layers.Dense(2),
        ]
    )
    assert ChannelAffine in kinds(folded(model))
    assert reason in results(model)["ic"]


def test_a_tiny_scale_leaves_the_whole_affine():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras_ic.IC(name="ic"),
            layers.Conv2D(3, 3, padding="same", name="conv"),
        ]
    )
    scatter(model, 0, 0, 0)
    model.get_layer("ic").gamma.assign([1.0, 1e-7])
    assert results(model)["ic"].startswith("becomes ic_affine: conv (Conv2D) reads it")
    models.assert_same_function(model, keras_ic.fold(model), 1e-5)


def test_what_a_layer_says_of_its_weights_stays_true():
    stack = [
        layers.Dense(4, kernel_constraint="unit_norm", kernel_regularizer="l2", name="first"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
        layers.Dense(3, kernel_constraint="unit_norm", name="second"),
    ]
    model = keras.Sequential([keras.Input((5,)), *stack])
    new = folded(model)
    assert new.get_layer("first").kernel_constraint is None
    assert new.get_layer("second").kernel_constraint is not None
    plan = keras_ic.plan_fold(model)
    (row,) = [change for change in plan.changes if change.kind == "constraint"]
    assert row.layer == "first" and row.result.startswith("loses its kernel_constraint")
    assert results(model)["bn"].endswith("the penalty of the regularizer of first")


def test_what_is_not_known_to_be_linear_is_left_with_the_reason():
    @keras.saving.register_keras_serializable(package="test")
    class Mine(layers.Dense):
        pass

    @keras.saving.register_keras_serializable(package="test")
    class Other(keras_ic.IC):
        def call(self, inputs, training=None):
            return super().call(inputs) * 2.0

    for reader in (
        Mine(3, name="reader"),
        layers.Dense(3, name="reader", lora_rank=2),
        layers.LSTM(3, name="reader"),
    ):
        model = keras.Sequential([keras.Input((5, 4)), keras_ic.IC(name="ic"), reader])
        new = folded(model)
        assert new.get_layer("ic_affine").use_scale and "reader" in results(model)["ic"]
    model = scatter(
        keras.Sequential(
            [keras.Input((4,)), Other(name="other"), keras_ic.IC(name="ic"), layers.Dense(3)]
        ),
        0,
        0,
        0,
    )
    models.assert_same_function(model, keras_ic.fold(model), 1e-5)
    assert "computes something else" in plan_fold(model).skipped[0].reason


def test_called_with_training_stays():
    inputs = keras.Input((4,))
    model = scatter(
        keras.Model(
            inputs,
            layers.Dense(2)(
                keras_ic.IC(name="ic")(layers.BatchNormalization(name="bn")(inputs, training=True))
            ),
        ),
        0,
        0,
        0,
    )
    assert [skip.layer for skip in plan_fold(model).skipped] == ["bn"]
    assert [type(layer).__name__ for layer in keras_ic.fold(model).layers] == [
        "InputLayer",
        "BatchNormalization",
        "Dense",
    ]


def test_normalizations_out_of_sight_are_listed():
    @keras.saving.register_keras_serializable(package="test")
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inside = layers.BatchNormalization()

        def call(self, inputs):
            return self.inside(inputs)

    model = scatter(
        keras.Sequential(
            [keras.Input((4,)), Block(name="block"), keras_ic.IC(name="ic"), layers.Dense(2)]
        ),
        0,
        0,
        0,
    )
    assert [
        (skip.layer, "1 normalizations in it" in skip.reason) for skip in plan_fold(model).skipped
    ] == [("block", True)]
    models.assert_same_function(model, keras_ic.fold(model), 1e-5)


def test_a_model_that_is_called_in_training_stays():
    stack = [layers.Dense(4), keras_ic.IC(0.5, name="inside"), layers.Dense(4)]
    inner = keras.Sequential([keras.Input((4,)), *stack], name="inner")
    inputs = keras.Input((4,))
    for calls in ([True], [None, True], [True, None]):
        x = keras_ic.IC(name="ic")(keras.ops.tanh(inputs))
        for training in calls:
            x = inner(layers.Dense(4)(x), training=training)
        model = scatter(keras.Model(inputs, x), 0, 0, 0)
        assert list(results(model)) == ["ic"]
        assert [skip.reason for skip in plan_fold(model).skipped] == [
            "stays, and the 1 normalizations in it: called with training=True"
        ]
        new = keras_ic.fold(model)
        assert models.draws(new, models.sample(model))  # Its dropout works.


def test_a_folded_model_is_not_folded_again():
    for stack in (
        # A shift stays.
        [
            layers.Conv2D(4, 3),
            layers.LeakyReLU(),
            keras_ic.IC(name="ic"),
            layers.Conv2D(2, 3, padding="same"),
        ],
        [layers.Conv2D(4, 3), keras_ic.IC(name="ic"), layers.Softmax()],  # All goes before.
        # Scale and shift stay.
        [layers.Conv2D(4, 3, activation="tanh"), keras_ic.IC(name="ic"), layers.Softmax()],
        # What is nested holds an Identity.
        [keras.Sequential([keras.Input((6, 6, 3)), layers.Dropout(0.5)])],
    ):
        model = scatter(keras.Sequential([keras.Input((6, 6, 3)), *stack]), 0, 0, 0)
        new = keras_ic.fold(model)
        plan = keras_ic.plan_fold(new)
        assert not plan.changes and str(plan).endswith("`fold` gives an equal copy.")
        again = keras_ic.fold(new)
        assert again is not new and again.get_config() == new.get_config()
        models.assert_same_function(new, again, 0)


def test_untrained_statistics_warn():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activation="relu"),
            keras_ic.IC(name="ic"),
            layers.Dense(2),
        ]
    )
    with pytest.warns(
        UserWarning, match=r"as initialized.*recalibrate.*Received: model .* with ic"
    ):
        keras_ic.fold(model)
    # Identities on purpose: no warning.
    keras_ic.fold(
        keras_ic.rewrite(scatter(models.small_convolutional(), 0, 0, 0), weights="preserve")
    )


def test_errors_say_what_to_do():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    for model, message in (
        (Own(), r"subclassed model are Python code.*`keras.Model.*Received: model 'own'"),
        (keras.Sequential([layers.Dense(2)]), r"not built.*Received: model"),
        (3, r"must be a keras.Model. Received: model=3"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_ic.fold(model)
    inputs = keras.Input((4,))
    kept = keras.Model(inputs, layers.BatchNormalization(name="bn")(inputs, training=True))
    assert "called with training=True" in keras_ic.plan_fold(kept).skipped[0].reason
