"""Every kernel gives the numbers of the reference, on the same mask, forward and backward, in each
way of running it.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ic import kernels
from keras_ic.kernels import reference
from keras_ic.kernels.threshold import drop_threshold, realized_rate
from tests.autodiff import HAS_FLOAT64, MODES, run, to_numpy

RATE, EPSILON = 0.3, 1e-3
SHAPES = [
    ((6, 5), -1),
    ((4, 3, 5), -1),
    ((4, 3, 5), 1),
    ((4, 3, 2, 5), -1),
    ((4, 5, 3, 2), 1),
    ((3, 2, 2, 2, 3), -1),
    ((3, 4, 2, 2, 3), 2),
]
# Dropout in every dtype; without it, one is enough.
KINDS = [("float32", False), *((dtype, True) for dtype in ("float32", "float16", "bfloat16"))]
TOLERANCE = {"float64": 1e-9, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def batch(shape, axis, dtype, seed=0):
    rng = np.random.default_rng(seed)
    channels = shape[axis]
    wide = "float64" if dtype == "float64" else "float32"
    x = ops.cast((3 * rng.normal(size=shape) + 1).astype(wide), dtype)
    gamma, beta = rng.uniform(0.5, 2, channels).astype(wide), rng.normal(size=channels).astype(wide)
    mean, variance = (
        rng.normal(size=channels).astype(wide),
        rng.uniform(0.1, 4, channels).astype(wide),
    )
    keep = rng.uniform(size=shape) >= RATE
    return x, gamma, beta, mean, variance, keep, rng.normal(size=shape).astype(wide)


def assert_same(kernel, definition, arguments, cotangents, dtype, mode):
    outputs, gradients = run(kernel, arguments, cotangents, mode)
    # The definition is taken in float32 at least, so that the tolerance is that of the kernel
    # alone.
    exact = [ops.cast(a, "float32") if dtype in ("float16", "bfloat16") else a for a in arguments]
    wanted, wanted_gradients = run(definition, exact, cotangents, "eager")
    tolerance = TOLERANCE[dtype]
    for got, want in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    for got, want in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "dropout"), [*KINDS, ("float64", True)])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_train(shape, axis, dtype, mode, dropout):
    if dtype == "float64" and not HAS_FLOAT64:
        pytest.skip("JAX_ENABLE_X64 is not 1")
    x, gamma, beta, _, _, keep, cotangents = batch(shape, axis, dtype)
    keep = ops.convert_to_tensor(keep) if dropout else None

    def train(module):
        return lambda x, gamma, beta: module.train(x, gamma, beta, keep, RATE, axis, EPSILON)

    assert_same(train(kernels), train(reference), [x, gamma, beta], cotangents, dtype, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "dropout"), KINDS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_normalize(shape, axis, dtype, mode, dropout):
    x, gamma, beta, mean, variance, keep, cotangents = batch(shape, axis, dtype)
    keep = ops.convert_to_tensor(keep) if dropout else None

    def normalize(module):
        return lambda x, mean, variance, gamma, beta: [
            module.normalize(x, mean, variance, gamma, beta, keep, RATE, axis, EPSILON)
        ]

    assert_same(
        normalize(kernels),
        normalize(reference),
        [x, mean, variance, gamma, beta],
        cotangents,
        dtype,
        mode,
    )


@pytest.mark.parametrize("epsilon", [1e-3, 1e-6])
def test_train_without_gamma_and_beta_at_any_epsilon(epsilon):
    x, *_, cotangents = batch((4, 3, 2, 5), -1, "float32")
    got, _ = run(
        lambda x: kernels.train(x, None, None, None, 0.0, -1, epsilon), [x], cotangents, MODES[-1]
    )
    want, _ = run(
        lambda x: reference.train(x, None, None, None, 0.0, -1, epsilon), [x], cotangents, "eager"
    )
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_normalize_without_gamma_and_beta():
    x, _, _, mean, variance, keep, _ = batch((4, 3, 2, 5), -1, "float32")
    arguments = [
        x,
        *(ops.convert_to_tensor(a) for a in (mean, variance)),
        None,
        None,
        ops.convert_to_tensor(keep),
        RATE,
        -1,
        EPSILON,
    ]
    np.testing.assert_allclose(
        to_numpy(kernels.normalize(*arguments)),
        to_numpy(reference.normalize(*arguments)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_moments_of_the_valid_positions(shape, axis, share, mode):
    x, *_ = batch(shape, axis, "float32")
    valid = np.random.default_rng(1).uniform(size=(*shape[:-1], 1)) < share
    x = np.where(valid, to_numpy(x), np.nan)  # what is masked must not leak, whatever it is
    valid = ops.convert_to_tensor(valid)

    def moments(module):
        return lambda x: module.moments(x, axis, valid)

    cotangents = np.ones(shape[axis], "float32")
    got, gradients = run(moments(kernels), [x], cotangents, mode)
    want, wanted_gradients = run(moments(reference), [x], cotangents, "eager")
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradients[0], wanted_gradients[0], rtol=1e-5, atol=1e-6)
    if share == 0:
        assert not np.any(got[2])


def test_moments_of_everything():
    x, *_ = batch((4, 3, 5), 1, "float32")
    for got, want in zip(kernels.moments(x, 1), reference.moments(x, 1), strict=True):
        np.testing.assert_allclose(to_numpy(got), to_numpy(want), rtol=1e-5, atol=1e-5)


def test_one_row_gives_the_offset_and_no_nan():
    x = ops.convert_to_tensor(np.array([[5.0, -3.0]], "float32"))
    y, mean, variance = kernels.train(x, None, None, None, 0.0, -1, EPSILON)
    np.testing.assert_allclose(to_numpy(mean), [5, -3])
    np.testing.assert_allclose(to_numpy(variance), [0, 0])
    np.testing.assert_allclose(to_numpy(y), [[0, 0]], atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "axis"), [((4096, 3), -1), ((16, 8, 8, 3), -1), ((16, 3, 8, 8), 1)]
)
def test_a_large_mean_costs_no_digits(shape, axis, mode):
    x = np.random.default_rng(0).normal(size=shape).astype("float32") + 1e4
    axes = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    cotangents = np.random.default_rng(1).normal(size=shape).astype("float32")
    (y, mean, variance), (gradient,) = run(
        lambda x: kernels.train(x, None, None, None, 0.0, axis, EPSILON), [x], cotangents, mode
    )
    exact, count = x.astype("float64"), x.size / 3
    centred = exact - exact.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(centred.var(axes, keepdims=True) + EPSILON)
    # TensorFlow's fused op adds the values up as they are, which costs its mean 1e-6 of itself.
    np.testing.assert_allclose(mean, exact.mean(axes), rtol=4e-6)
    np.testing.assert_allclose(variance, exact.var(axes), rtol=1e-3)
    np.testing.assert_allclose(y, centred * inverse, atol=0.04)
    correlated = (cotangents * centred).sum(axes, keepdims=True) * inverse**2
    wanted = inverse * (
        cotangents - cotangents.mean(axes, keepdims=True) - centred * correlated / count
    )
    np.testing.assert_allclose(gradient, wanted, atol=0.04)


def test_a_first_example_far_from_the_others_costs_no_digits():
    x = np.random.default_rng(0).normal(size=(256, 4, 3)).astype("float32")
    x[0] -= 1e4
    _, mean, variance = kernels.train(ops.convert_to_tensor(x), None, None, None, 0, -1, EPSILON)
    np.testing.assert_allclose(to_numpy(mean), x.mean((0, 1), dtype="float64"), rtol=1e-4)
    np.testing.assert_allclose(to_numpy(variance), x.var((0, 1), dtype="float64"), rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(8, 7), (3, 5, 7), (4, 4, 4, 4), (5, 1, 1, 3)])
def test_draws_are_the_same_in_every_mode(shape, mode):
    seed = keras.random.SeedGenerator(5).state.value
    # The gradient is not of interest; the runner takes a float to differentiate.
    got, _ = run(
        lambda one: [one * ops.cast(kernels.draw(shape, RATE, seed), "float32")],
        [np.ones([], "float32")],
        np.ones(shape, "float32"),
        mode,
    )
    want = to_numpy(kernels.draw(shape, RATE, seed))
    assert got[0].shape == shape
    np.testing.assert_array_equal(got[0] > 0, want)


@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.03, 0.05, 0.1, 1 / 3, 0.5, 0.9, 0.999999, 1 - 1e-9])
def test_the_threshold_realizes_the_rate(rate):
    assert abs(drop_threshold(rate) / 2**16 - rate) <= 2**-16
    assert realized_rate(rate) == drop_threshold(rate) / 2**16
    assert realized_rate(rate) < 1  # never everything


def test_the_reference_draws_at_the_rate_and_differently_every_step():
    first, second = (
        to_numpy(reference.draw((400, 500), RATE, np.array([3, step]))) for step in (0, 1)
    )
    assert abs(first.mean() - (1 - RATE)) < 0.01
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.01
