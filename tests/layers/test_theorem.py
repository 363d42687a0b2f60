"""What dropout does to dependence (Chen et al. 2019, section 3.2), by exact enumeration, and on the
layer itself.

Here p is the keep probability, 1 - rate.
"""

import itertools

import numpy as np
import pytest

import keras_ic
from tests.autodiff import to_numpy

KEEP = [1.0, 0.95, 0.9, 0.7, 0.5, 0.1]


def random_joint(values, seed):
    """A joint distribution of two variables with these values and zero means, as {(a, b):
    probability}.
    """
    table = (
        np.random.default_rng(seed).dirichlet(np.ones(len(values) ** 2)).reshape(len(values), -1)
    )
    table = (table + table[::-1, ::-1]) / 2  # symmetric values then have zero mean
    return {
        (a, b): table[i, j] for (i, a), (j, b) in itertools.product(enumerate(values), repeat=2)
    }


def gated(joint, p):
    """The joint distribution after independent Bernoulli(p) gates."""
    out = {}
    for (a, b), probability in joint.items():
        for g, h in itertools.product((0, 1), repeat=2):
            key = (a * g, b * h)
            out[key] = out.get(key, 0) + probability * (p if g else 1 - p) * (p if h else 1 - p)
    return out


def marginal(joint, which):
    out = {}
    for key, probability in joint.items():
        out[key[which]] = out.get(key[which], 0) + probability
    return out


def entropy(distribution):
    return -sum(q * np.log(q) for q in distribution.values() if q > 0)


def information(joint):
    return entropy(marginal(joint, 0)) + entropy(marginal(joint, 1)) - entropy(joint)


def mean(distribution):
    return sum(value * q for value, q in distribution.items())


def variance(distribution):
    return sum(value**2 * q for value, q in distribution.items()) - mean(distribution) ** 2


def correlation(joint):
    a, b = marginal(joint, 0), marginal(joint, 1)
    product = sum(x * y * q for (x, y), q in joint.items())
    return (product - mean(a) * mean(b)) / np.sqrt(variance(a) * variance(b))


@pytest.mark.parametrize("p", KEEP)
@pytest.mark.parametrize("seed", range(3))
def test_the_three_laws_where_they_hold(p, seed):
    joint = random_joint((-2.0, -1.0, 1.0, 2.0), seed)
    assert abs(correlation(joint)) > 1e-3
    assert information(joint) > 1e-3
    after = gated(joint, p)
    np.testing.assert_allclose(correlation(after), p * correlation(joint), rtol=1e-9)
    np.testing.assert_allclose(information(after), p**2 * information(joint), rtol=1e-9)
    gate = entropy({0: 1 - p, 1: p})
    np.testing.assert_allclose(
        entropy(marginal(after, 0)), p * entropy(marginal(joint, 0)) + gate, rtol=1e-9
    )


@pytest.mark.parametrize("p", KEEP[1:])
def test_a_mean_breaks_the_law_of_correlation_as_the_docstring_says(p):
    joint = {(a + 3, b + 3): q for (a, b), q in random_joint((-2.0, -1.0, 1.0, 2.0), 0).items()}
    after = gated(joint, p)
    a, b = marginal(joint, 0), marginal(joint, 1)
    covariance = correlation(joint) * np.sqrt(variance(a) * variance(b))
    inflated = [variance(m) + (1 - p) * mean(m) ** 2 for m in (a, b)]
    np.testing.assert_allclose(
        correlation(after), p * covariance / np.sqrt(np.prod(inflated)), rtol=1e-9
    )
    assert abs(correlation(after)) < 0.9 * p * abs(correlation(joint))


@pytest.mark.parametrize("p", KEEP[1:])
def test_mass_at_zero_breaks_the_law_of_information(p):
    joint = random_joint((-1.0, 0.0, 1.0), 1)
    after = information(gated(joint, p))
    assert after < p**2 * information(joint) * 0.999
    entropy_after = entropy(marginal(gated(joint, p), 0))
    assert entropy_after < p * entropy(marginal(joint, 0)) + entropy({0: 1 - p, 1: p}) - 1e-3


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6])
def test_the_layer_multiplies_correlation_by_the_keep_probability(rate):
    rng = np.random.default_rng(0)
    common = rng.normal(size=(100_000, 1))
    # Two dependent rectified units.
    x = np.maximum(common + 0.5 * rng.normal(size=(100_000, 2)), 0).astype("float32")
    before = np.corrcoef(x.T)[0, 1]
    y = to_numpy(keras_ic.IC(rate, seed=0)(x, training=True))
    assert abs(np.corrcoef(y.T)[0, 1] - (1 - rate) * before) < 0.01
    # Dropout alone, on units whose mean is not zero, does something else.
    dropped = x * (rng.uniform(size=x.shape) >= rate)
    assert np.corrcoef(dropped.T)[0, 1] < (1 - rate) * before - 0.01
