"""Inputs at the edges of float32, against the layer's definition in float64."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

import keras_ic
from tests.autodiff import to_numpy

NORMAL = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")


def with_outlier():
    x = NORMAL.copy()
    x[3] = 1e8
    return x


CASES = {
    "1e-42, subnormal": NORMAL * np.float32(1e-42),
    "1e-30": NORMAL * np.float32(1e-30),
    "1e18": NORMAL * np.float32(1e18),  # whose squares float32 just holds
    "constant channels": np.tile(np.array([0, 1, -1000, 1e6], "float32"), (64, 1)),
    "one constant channel": np.where([True, True, False, True], NORMAL, 3).astype("float32"),
    "a huge outlier": with_outlier(),
    "a mean of 1e4 deviations": NORMAL + np.float32(1e4),
    "two samples": NORMAL[:2],
    "a sample": NORMAL[:1],
}


def in_float64(x, mean, variance, epsilon=1e-3):
    return (x - mean) / np.sqrt(variance + epsilon)


def output(layer, x, training):
    return to_numpy(ops.stop_gradient(layer(x, training=training)))


def assert_near(found, expected, mean, variance):
    # A mean of so many deviations costs the difference from it so many roundings of float32,
    # however it is taken.
    cancelled = np.abs(mean) / np.sqrt(variance + 1e-3)
    assert np.all(np.abs(found - expected) <= 1e-5 * np.abs(expected) + 5e-7 * (1 + cancelled))


@pytest.mark.filterwarnings("ignore:.*a single value a channel:UserWarning")
@pytest.mark.parametrize("epsilon", [1e-3, 1e-6])  # TensorFlow's fused kernel and the one beside it
@pytest.mark.parametrize("shape", [(-1, 4), (-1, 1, 1, 4)])
@pytest.mark.parametrize("name", CASES)
def test_training_and_inference_against_float64(name, shape, epsilon):
    x = CASES[name].reshape(shape)
    wide = CASES[name].astype("float64")
    mean, variance = wide.mean(0), wide.var(0)
    layer = keras_ic.IC(0, momentum=0.5, epsilon=epsilon)
    found = output(layer, x, training=True).reshape(-1, 4)
    if epsilon == 1e-3:
        assert_near(found, in_float64(wide, mean, variance), mean, variance)
    assert np.all(np.isfinite(found))
    # The mean is as exact as a sum in float32 is; an outlier of the size of the sum takes its
    # digits from all the others.
    largest = np.abs(wide).max(0)
    moving_mean, moving_variance = (
        weights.astype("float64") for weights in layer.get_weights()[2:]
    )
    # And what is subnormal may count as 0.
    np.testing.assert_allclose(moving_mean, mean / 2, rtol=1e-5, atol=1e-6 * largest.max() + 1e-37)
    np.testing.assert_allclose(
        moving_variance, (1 + variance) / 2, rtol=1e-4, atol=(1e-6 * largest.max()) ** 2
    )
    found = output(layer, x, training=False).reshape(-1, 4)
    if epsilon == 1e-3:
        assert_near(
            found, in_float64(wide, moving_mean, moving_variance), moving_mean, moving_variance
        )


def test_values_whose_squares_overflow_give_zeros_and_no_nan():
    layer = keras_ic.IC(0, momentum=0.5)
    x = NORMAL * np.float32(1e30)
    np.testing.assert_array_equal(output(layer, x, training=True), np.zeros_like(x))
    mean, variance = layer.get_weights()[2:]
    np.testing.assert_allclose(mean, x.astype("float64").mean(0) / 2, rtol=1e-4, atol=1e24)
    # Which says what it is, and is repaired by the statistics of other data.
    assert np.all(variance == np.inf)
    keras_ic.recalibrate(keras.Sequential([keras.Input((4,)), layer]), NORMAL, verbose=0)
    np.testing.assert_allclose(
        output(layer, NORMAL, training=False),
        in_float64(NORMAL, NORMAL.mean(0), NORMAL.var(0)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_large_values_at_inference_are_scaled_as_all_others():
    layer = keras_ic.IC(0)
    layer.build((None, 4))
    x = NORMAL * np.float32(1e30)
    np.testing.assert_allclose(output(layer, x, training=False), x / np.sqrt(1.001), rtol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_stays_in_its_channel_in_training_and_in_its_place_at_inference(bad, rate):
    x = NORMAL.copy()
    x[5, 1] = bad
    other, spoiled = (
        keras_ic.IC(rate, momentum=0.5, seed=1),
        keras_ic.IC(rate, momentum=0.5, seed=1),
    )
    expected, found = output(other, NORMAL, training=True), output(spoiled, x, training=True)
    sound = [0, 2, 3]
    np.testing.assert_allclose(found[:, sound], expected[:, sound], rtol=1e-5, atol=1e-6)
    for one, two in zip(spoiled.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one[sound], two[sound], rtol=1e-5)
    assert not np.isfinite(spoiled.get_weights()[3][1])  # not hidden
    found = output(other, x, training=False)
    assert not np.isfinite(found[5, 1])
    x[5, 1] = found[5, 1] = 0
    np.testing.assert_allclose(
        np.delete(found, 5, 0),
        np.delete(output(other, NORMAL, training=False), 5, 0),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_values_at_masked_positions_reach_nothing(bad):
    mask = np.random.default_rng(1).uniform(size=(16, 4)) < 0.5
    x = NORMAL.reshape(16, 4, 4)
    layer = keras_ic.IC(0, momentum=0.5)
    found = output_of_masked(layer, np.where(mask[..., np.newaxis], x, bad).astype("float32"), mask)
    valid = x[mask].astype("float64")
    np.testing.assert_allclose(
        found[mask], in_float64(valid, valid.mean(0), valid.var(0)), rtol=1e-4, atol=1e-5
    )
    assert all(np.all(np.isfinite(weight)) for weight in layer.get_weights())


def output_of_masked(layer, x, mask):
    return to_numpy(ops.stop_gradient(layer(x, training=True, mask=mask)))


FLOATS = st.floats(-(2.0**60), 2.0**60, width=32)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    x=arrays(
        "float32",
        (6, 3),
        elements=st.one_of(FLOATS, st.sampled_from([0.0, 1.0, 1e4, -1e4, 16777217.0, 1e-40])),
    ),
    shift=st.sampled_from([0.0, 1e3, 1e6]),
    mask=arrays(bool, (6,)),
    masked=st.booleans(),
    epsilon=st.sampled_from([1e-3, 1e-6]),
)
def test_the_moving_variance_is_never_negative(x, shift, mask, masked, epsilon):
    layer = keras_ic.IC(0, momentum=0.0, epsilon=epsilon)
    for _ in range(2):
        if masked:
            found = output_of_masked(
                layer, (x + np.float32(shift)).reshape(6, 1, 3), mask.reshape(6, 1)
            )
        else:
            found = output(layer, x + np.float32(shift), training=True)
        variance = layer.get_weights()[3]
        assert np.all(variance >= 0) and np.all(np.isfinite(variance))
        assert np.all(np.isfinite(found))


def test_the_synchronized_moving_variance_is_never_negative(request):
    """Its sums of squares are subtracted from one another, as no other kernel's are."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("synchronized layers are for TensorFlow alone")
    import tensorflow as tf

    strategy = request.getfixturevalue("strategy")
    with strategy.scope():
        layer = keras_ic.IC(0, momentum=0.0, synchronized=True)
        layer.build((None, 4))

    @tf.function
    def step(x):
        return strategy.run(lambda x: layer(x, training=True), (x,))

    for offset in (0.0, 1e4, 1e6, 1e8):
        x = tf.constant(NORMAL + np.float32(offset))
        found = step(x)
        assert np.all(layer.get_weights()[3] >= 0)
        assert all(
            np.all(np.isfinite(values.numpy()))
            for values in strategy.experimental_local_results(found)
        )


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="about stock Keras on torch")
def test_where_stock_batch_normalization_on_torch_loses_its_variance():
    """What docs/conformance.md says of it, as of Keras 3.15; the sentence goes when this fails."""
    stock, ours = keras.layers.BatchNormalization(momentum=0.0), keras_ic.IC(0, momentum=0.0)
    x = CASES["a mean of 1e4 deviations"]
    found, own = output(stock, x, training=True), output(ours, x, training=True)
    assert np.any(stock.get_weights()[3] < 0) and np.any(np.isnan(found))
    assert np.all(ours.get_weights()[3] > 0.5) and np.all(np.isfinite(own))
