"""Folding of whole models: settings of their layers, nested models, open sizes, precisions."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine, ChannelClip
from tests.conftest import BACKEND
from tests.surgery import models
from tests.surgery.folds import folded, kinds, residual, results


@pytest.mark.parametrize(
    "settings",
    [
        {"center": False},
        {"scale": False},
        {"center": False, "scale": False},
        {"axis": 1},
        {"axis": 2},
    ],
    ids=str,
)
def test_settings_of_the_ic(settings):
    for linear in (layers.Conv2D(3, 3, padding="same", name="conv"), layers.Dense(3)):
        model = keras.Sequential(
            [keras.Input((6, 5, 4)), keras_ic.IC(name="ic", **settings), linear]
        )
        new = folded(model)
        if "axis" in settings:
            assert type(new.layers[0]) is ChannelAffine and new.layers[0].axis == settings["axis"]
            assert "reads it" in results(model)["ic"]


@pytest.mark.skipif(
    BACKEND == "tensorflow", reason="TensorFlow has no convolution for channels_first on CPUs"
)
def test_channels_first():
    first = {"data_format": "channels_first"}
    stack = [
        layers.Conv2D(4, 3, activation="relu", name="one", **first),
        keras_ic.IC(axis=1, name="a"),
        layers.ZeroPadding2D(1, **first),
        layers.Conv2D(5, 3, padding="same", name="two", **first),
        keras_ic.IC(axis=1, name="b"),
        layers.AveragePooling2D(2, **first),
        layers.Conv2D(5, 2, name="three", **first),
        layers.BatchNormalization(axis=1, name="c"),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(**first),
        keras_ic.IC(name="d"),
        layers.Dense(2),
    ]
    new = folded(keras.Sequential([keras.Input((3, 12, 12)), *stack]))
    assert [layer.axis for layer in new.layers if isinstance(layer, ChannelClip)] == [
        1
    ] and ChannelAffine not in kinds(new)


def test_nested_and_shared_models():
    stack = [
        keras.Input((6, 6, 4)),
        keras_ic.IC(name="i1"),
        layers.Conv2D(4, 1, name="c1"),
        layers.ReLU(),
        keras_ic.IC(name="i2"),
    ]
    inner = keras.Sequential(
        [*stack, layers.Conv2D(4, 3, padding="same", name="c2"), layers.Dropout(0.2)], name="inner"
    )
    empty = keras.Sequential([keras.Input((6, 6, 4)), layers.Dropout(0.5)], name="empty")
    inputs = keras.Input((6, 6, 3))
    x = inner(layers.Conv2D(4, 3, padding="same", name="stem")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(keras_ic.IC(name="end")(empty(inner(x) + x))))
    new = folded(model)
    assert [layer.name for layer in new.get_layer("inner").layers] == ["c1", "re_lu_clip", "c2"]
    assert results(model)["inner/i2"] == "folded into c1, through the ReLU between"
    # A map does not cross into a model: the inner one may be called from elsewhere too.
    outer = keras.Model(
        inputs,
        inner(
            keras_ic.IC(name="outside")(
                layers.Activation("tanh")(layers.Conv2D(4, 3, padding="same")(inputs))
            )
        ),
    )
    assert folded(outer).get_layer("outside_affine").use_scale
    assert "inner (Sequential) reads it" in results(outer)["outside"]


def test_inside_time_distributed():
    stack = [
        keras.Input((3, 6, 6, 2)),
        layers.TimeDistributed(layers.Conv2D(4, 3, use_bias=False, activation="relu"), name="one"),
        layers.TimeDistributed(keras_ic.IC(), name="a"),
        layers.TimeDistributed(layers.Conv2D(5, 3, padding="same"), name="two"),
        layers.TimeDistributed(layers.BatchNormalization(), name="b"),
        layers.Activation("tanh"),
        keras_ic.IC(name="c"),
        layers.TimeDistributed(layers.Conv2D(3, 3, use_bias=False), name="three"),
    ]
    model = keras.Sequential(stack)
    new = folded(model)
    assert [layer.name for layer in new.layers] == ["one", "one_clip", "two", "activation", "three"]
    assert new.get_layer("three").layer.use_bias
    over_time = keras.Sequential(
        [
            keras.Input((3, 4)),
            keras_ic.IC(axis=1, name="ic"),
            layers.TimeDistributed(layers.Dense(2)),
        ]
    )
    assert folded(over_time).get_layer("ic_affine").axis == 1


def test_open_sizes():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(4, 3, padding="same")(keras_ic.IC()(x)) + x
    x = layers.Conv2D(4, 3, padding="same")(keras_ic.IC()(x))
    model = keras.Model(inputs, layers.Dense(3)(keras_ic.IC()(layers.Reshape((-1, 4))(x))))
    assert not any(
        layer.use_scale for layer in folded(model).layers if isinstance(layer, ChannelAffine)
    )


def test_a_reshape_of_open_sizes_that_moves_channels_is_left():
    inputs = keras.Input((None, 4))
    model = keras.Model(
        inputs, layers.Dense(3)(layers.Reshape((-1, 2))(keras_ic.IC(name="ic")(inputs)))
    )
    assert folded(model).get_layer("ic_affine").use_scale


@pytest.mark.parametrize(
    "policy",
    ["mixed_float16", "mixed_bfloat16", pytest.param("float64", marks=pytest.mark.tensorflow_only)],
)
def test_other_precisions(policy):
    keras.config.set_dtype_policy(policy)
    stack = [
        keras.Input((8, 8, 3)),
        layers.Conv2D(4, 3, activation="relu"),
        keras_ic.IC(),
        layers.Conv2D(4, 3, padding="same"),
        keras_ic.IC(),
    ]
    model = keras.Sequential(
        [*stack, layers.ReLU(), keras_ic.IC(), layers.Conv2D(4, 3, padding="same", name="last")]
    )
    new = folded(
        model, tolerance={"float64": 1e-12, "mixed_float16": 1e-2, "mixed_bfloat16": 5e-2}[policy]
    )
    assert {layer.dtype_policy.name for layer in new.layers} == {policy}


def test_a_layer_that_changes_the_precision_stays_an_affine():
    stack = [
        layers.Dense(4, dtype="mixed_float16"),
        keras_ic.IC(name="ic", dtype="float32"),
        layers.Dense(2, dtype="mixed_float16"),
    ]
    model = keras.Sequential([keras.Input((4,)), *stack])
    new = folded(model, tolerance=1e-2)
    assert (
        new.get_layer("ic_affine").compute_dtype == "float32"
        and "it turns float16 into float32" in results(model)["ic"]
    )


def test_a_residual_network_by_and_by(tmp_path):
    model = residual()
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    new = folded(model)
    assert new.compiled and new.optimizer is not model.optimizer
    assert sorted(
        layer.name for layer in new.layers if isinstance(layer, (ChannelAffine, ChannelClip))
    ) == [
        "relu_a0_clip",
        "relu_a1_clip",
        "relu_b0_clip",
        "relu_b1_clip",
    ]
    models.assert_saves_and_loads(new, tmp_path)
    x = models.sample(model, batch=16)
    np.testing.assert_allclose(new.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)
    loaded = keras.models.clone_model(new)
    loaded.set_weights(new.get_weights())
    np.testing.assert_array_equal(models.outputs(loaded, x)[0], models.outputs(new, x)[0])


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")
def test_the_folded_model_quantizes():
    model = residual()
    new = folded(model)
    x = models.sample(model, batch=16)
    expected = models.outputs(model, x)[0]
    new.quantize("int8")
    error = np.abs(models.outputs(new, x)[0] - expected).max() / np.abs(expected).max()
    assert new.get_layer("end").quantization_mode == "int8" and 0 < error < 0.05
    again = keras.Sequential(
        [
            keras.Input((8, 8, 8)),
            keras_ic.IC(name="ic"),
            layers.GlobalAveragePooling2D(),
            new.get_layer("end"),
        ]
    )
    assert "ic_affine" in {layer.name for layer in folded(again).layers}
