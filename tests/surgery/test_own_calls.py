"""Subclasses of Keras's layers: one with a `call` of its own may compute anything, one without is
what it is made from.
"""

import keras
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine
from tests.surgery import models
from tests.surgery.folds import folded, kinds, results


def own(kind, **arguments):
    """A layer that is made from another and computes something else."""

    @keras.saving.register_keras_serializable(package="test", name=f"Own{kind.__name__}")
    class Own(kind):
        def call(self, inputs):
            return keras.ops.tanh(super().call(inputs))

    return pytest.param(Own, arguments, id=kind.__name__)


OWN = [
    own(layers.Dropout, rate=0.5),
    own(layers.Identity),
    own(layers.Activation, activation="linear"),
    own(layers.AveragePooling2D, pool_size=2),
    own(layers.MaxPooling2D),
    own(layers.GlobalAveragePooling2D),
    own(layers.Cropping2D, cropping=1),
    own(layers.UpSampling2D),
    own(layers.ZeroPadding2D),
    own(layers.Flatten),
    own(layers.Reshape, target_shape=(4, 64)),
    own(layers.Permute, dims=(1, 3, 2)),
]


@pytest.mark.parametrize("kind, arguments", OWN)
def test_a_subclass_with_a_call_of_its_own_is_not_what_it_is_made_from(kind, arguments):
    stack = [
        layers.Conv2D(4, 1, activation="tanh"),
        layers.BatchNormalization(name="bn"),
        kind(**arguments, name="own"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *stack, layers.Dense(3, name="end")])
    new = folded(model)
    assert "own" in results(model)["bn"] and type(new.get_layer("own")) is kind
    stack = [
        layers.Conv2D(4, 1),
        kind(**arguments),
        layers.BatchNormalization(axis=-1),
        layers.ReLU(),
    ]
    assert ChannelAffine in kinds(folded(keras.Sequential([keras.Input((8, 8, 3)), *stack])))
    rewritten = keras_ic.rewrite(model, weights="preserve")
    models.assert_same_function(model, rewritten)
    # What it does to the statistics is not known, so that no IC layer goes before it.
    assert [layer.name for layer in rewritten.layers][-3:] == ["own", "end_ic", "end"]


def test_dropout_that_works_at_inference_too_stays():
    @keras.saving.register_keras_serializable(package="test")
    class Always(layers.Dropout):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    stack = [layers.Dense(4), Always(0.5, name="always"), layers.Dropout(0.5), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *stack])
    assert list(results(model).values()) == ["removed: the identity at inference"]
    new = keras_ic.fold(model)
    assert [type(layer) for layer in new.layers] == [layers.Dense, Always, layers.Dense]
    assert models.draws(new, models.sample(model))


def test_a_subclass_without_a_call_of_its_own_is_what_it_is_made_from():
    @keras.saving.register_keras_serializable(package="test")
    class Named(layers.AveragePooling2D):
        pass

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras_ic.IC(name="ic"),
            Named(2, name="own"),
            layers.Dense(3, name="end"),
        ]
    )
    folded(model)
    assert results(model)["ic"] == "folded into end"
