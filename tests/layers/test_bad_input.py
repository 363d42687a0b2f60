"""Each mistake gets one clear error that says what was received."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_ic
from keras_ic.layers import checks


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            {"rate": rate}
            for rate in (
                1,
                1.0,
                -0.1,
                2,
                True,
                float("nan"),
                float("inf"),
                "0.1",
                None,
                [0.1],
                np.array([0.1]),
                np.bool_(True),
                1j,
                np.complex64(0.1j),
                10**400,
                np.array("a"),
            )
        ),
        *({"momentum": momentum} for momentum in (-0.1, 1.1, True, "0.9", None, float("nan"))),
        *({"epsilon": epsilon} for epsilon in (0, -1e-3, None, "1e-3", float("inf"), True)),
        *({"axis": axis} for axis in (1.5, "1", None, [3], True)),
        *({"seed": seed} for seed in (-1, 2**31, 1.5, "1", True)),
        *(
            {"noise_shape": shape}
            for shape in (3, "abc", (None, 0), (None, -1), (None, 1.5), (None, True))
        ),
        *(
            {name: value}
            for name in ("center", "scale", "synchronized")
            for value in (None, 1, "yes")
        ),
    ],
    ids=str,
)
def test_arguments(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=rf"(?s)`{name}`.*Received: .*\S$") as caught:
        keras_ic.IC(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("p", 0.95, "0.05"), ("keep_prob", 0.9, "0.1"), ("keep_probability", "x", "1 - keep")],
)
def test_a_keep_probability_is_answered_with_the_rate(name, value, said):
    with pytest.raises(
        ValueError, match=rf"`{name}` is no argument.*Use rate={said}.*Received: {name}="
    ):
        keras_ic.IC(**{name: value})


def test_a_high_rate_warns_once(monkeypatch):
    monkeypatch.setattr(checks, "_told_of_high_rate", False)
    keras_ic.IC(0.49)
    with pytest.warns(UserWarning, match=r"keep probability.*use rate=0.05.*Received: rate=0.95"):
        keras_ic.IC(0.95)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_ic.IC(0.95)


def test_a_rate_that_is_set_is_checked_too():
    layer = keras_ic.IC(0.1)
    for wrong in (1.0, -0.1, "0.1", None):
        with pytest.raises(
            ValueError, match=r"`rate` must be a number in \[0, 1\).*Received: rate="
        ):
            layer.rate = wrong
    assert layer.rate == 0.1
    layer.rate = 0
    layer.rate = 0.3
    assert layer.get_config()["rate"] == 0.3
    without = keras_ic.IC(0.0)
    with pytest.raises(ValueError, match=r"cannot rise from 0.*Received: 0.1$"):
        without.rate = 0.1
    assert without.rate == 0.0


def test_a_list_of_tensors():
    with pytest.raises(
        ValueError, match=r"normalizes one tensor.*Received: input shapes \[\(4, 3\), \(4, 3\)\]"
    ):
        keras_ic.IC()([ops.ones((4, 3)), ops.ones((4, 3))])


def test_a_mask_as_a_list():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    mask = [[True, False, True], [True, True, False]]
    one, two = (
        ops.convert_to_numpy(keras_ic.IC(0.0)(x, training=True, mask=each))
        for each in (mask, np.array(mask))
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("number", [np.float32(0.25), np.float64(0.25), np.array(0.25)])
def test_numpy_scalars_are_numbers(number):
    layer = keras_ic.IC(
        rate=number,
        momentum=number,
        epsilon=number,
        axis=np.int64(1),
        seed=np.int32(7),
        center=np.bool_(False),
    )
    config = layer.get_config()
    assert [
        type(config[name]) for name in ("rate", "momentum", "epsilon", "axis", "seed", "center")
    ] == [float, float, float, int, int, bool]
    assert (layer.rate, layer.axis, layer.seed) == (0.25, 1, 7)


@pytest.mark.parametrize(
    ("arguments", "shape", "said"),
    [
        ({}, (4,), "rank 2 or more"),
        ({"axis": 3}, (None, 4, 5), r"must be in \[-3, 2\]"),
        ({"axis": -4}, (None, 4, 5), r"must be in \[-3, 2\]"),
        ({"axis": 1}, (None, None, 5), "must be known"),
        ({"axis": 0}, (None, 5), "must be known"),
        ({"noise_shape": (None, 1)}, (None, 4, 5), "one entry an axis"),
        ({"noise_shape": (None, 3, 5)}, (None, 4, 5), "None, 1 or the size"),
    ],
)
def test_shapes_when_built(arguments, shape, said):
    with pytest.raises(ValueError, match=rf"{said}.*Received: .*\S$"):
        keras_ic.IC(**arguments).build(shape)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_inputs_that_are_not_floats(dtype):
    with pytest.raises(ValueError, match=r"cast them first.*Received: dtype"):
        keras_ic.IC()(ops.ones((2, 3), dtype))
    with pytest.raises(ValueError, match=r"cast them first.*Received: dtype"):
        keras_ic.IC()(keras.Input((3,), dtype=dtype))


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch(training):
    with pytest.raises(ValueError, match=r"at least one value.*Received: inputs of shape \(0, 3\)"):
        keras_ic.IC()(np.zeros((0, 3), "float32"), training=training)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (5, 4), (4, 5, 3), (4, 5, 1)])
def test_a_mask_of_the_wrong_shape(shape):
    with pytest.raises(
        ValueError,
        match=r"without the last axis, \(4, 5\), or of its first axes\. Received: mask of shape",
    ):
        keras_ic.IC()(np.zeros((4, 5, 3), "float32"), training=True, mask=np.ones(shape, bool))


def test_synchronized_elsewhere_than_on_tensorflow():
    if keras.backend.backend() == "tensorflow":
        assert keras_ic.IC(synchronized=True).synchronized
    else:
        with pytest.raises(
            ValueError,
            match=r"needs the TensorFlow backend.*Received: synchronized=True with the backend",
        ):
            keras_ic.IC(synchronized=True)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3)])
def test_a_single_value_a_channel_warns_and_gives_no_nan(shape):
    layer = keras_ic.IC(seed=0)
    with pytest.warns(UserWarning, match=r"a single value a channel.*Received: inputs of shape"):
        y = layer(np.full(shape, 5, "float32"), training=True)
    assert np.all(np.isfinite(ops.convert_to_numpy(y)))
    assert all(np.all(np.isfinite(w)) for w in layer.get_weights())


def test_a_call_that_fails_changes_nothing():
    layer = keras_ic.IC(seed=0)
    layer(np.ones((4, 5, 3), "float32"), training=True)
    before = [ops.convert_to_numpy(v) for v in layer.variables]
    for bad in ({"mask": np.ones((4, 4), bool)}, {}):
        with pytest.raises(ValueError, match="Received"):
            layer(np.ones((4, 5, 3) if bad else (0, 5, 3), "float32"), training=True, **bad)
    for a, b in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), b)


def test_weights_of_another_layer_are_refused_and_change_nothing(tmp_path):
    narrow, wide = (keras.Sequential([keras.Input((size,)), keras_ic.IC(0.1)]) for size in (3, 4))
    wide.save_weights(tmp_path / "wide.weights.h5")
    before = narrow.get_weights()
    with pytest.raises(ValueError, match="shape"):
        narrow.load_weights(tmp_path / "wide.weights.h5")
    for a, b in zip(narrow.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.tensorflow_only
def test_ragged_inputs():
    import tensorflow as tf

    ragged = tf.ragged.constant([[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]], ragged_rank=1)
    layer = keras_ic.IC()
    assert layer(ragged, training=False).shape == (2, None, 2)
    with pytest.raises(ValueError, match=r"must be dense; .*Received: .*RaggedTensor"):
        layer(ragged, training=True)
