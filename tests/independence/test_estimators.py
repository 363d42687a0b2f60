"""The estimators on cases whose values are known."""

import numpy as np
import pytest

from keras_ic.independence.estimators import (
    BINS,
    binned,
    information_of_bins,
    mutual_information,
    second_order,
)
from keras_ic.independence.running_covariance import RunningCovariance

ROWS = 4096


def normal_pair(correlation, rng, rows=ROWS):
    first, second = rng.normal(size=(2, rows))
    return first, correlation * first + np.sqrt(1 - correlation**2) * second


def estimates(draw, repeats=40):
    rng = np.random.default_rng(0)
    return np.array([mutual_information(*draw(rng))[0] for _ in range(repeats)])


def test_independent_normal_channels_have_no_information_on_average():
    found = estimates(lambda rng: normal_pair(0.0, rng))
    plain_counting = (BINS - 1) ** 2 / (2 * ROWS)
    assert abs(found.mean()) < plain_counting / 20
    assert found.std() < plain_counting / 5


@pytest.mark.parametrize("correlation", [0.3, 0.5, -0.5, 0.8])
def test_normal_channels_have_the_known_information_less_what_the_bins_do_not_resolve(correlation):
    known = -0.5 * np.log(1 - correlation**2)
    found = estimates(lambda rng: normal_pair(correlation, rng)).mean()
    assert 0.92 * known < found < known


@pytest.mark.parametrize("rows", [256, 1024])
def test_few_rows_are_put_into_few_bins(rows):
    rng = np.random.default_rng(0)
    found = []
    for seed in range(40):
        stream = RunningCovariance(rows=ROWS, seed=[seed])
        stream.add(rng.normal(size=(rows, 2)))
        found.append(stream.measured(pairs=1))
    assert {one["bins"] for one in found} == {5 if rows == 256 else 11}
    assert abs(np.mean([one["mutual_information"] for one in found])) < 0.01


def test_discrete_channels_have_the_information_of_their_joint_distribution():
    joint = np.random.default_rng(3).dirichlet(np.ones(9)).reshape(3, 3)
    known = np.sum(joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0))))
    entropies = [-np.sum(q * np.log(q)) for q in (joint.sum(1), joint.sum(0))]

    def draw(rng):
        return np.unravel_index(rng.choice(9, ROWS, p=joint.ravel()), (3, 3))

    assert abs(estimates(draw).mean() - known) < 0.005
    normalized = mutual_information(*draw(np.random.default_rng(0)))[1]
    assert abs(normalized - known / np.sqrt(np.prod(entropies))) < 0.02


@pytest.mark.parametrize("keep", [0.9, 0.7])
def test_gates_on_values_without_an_atom_at_0_multiply_information_by_the_squared_keep_probability(
    keep,
):
    def gated(rng):
        return tuple(np.where(rng.random(ROWS) < keep, x, 0) for x in normal_pair(0.8, rng))

    before, after = estimates(lambda rng: normal_pair(0.8, rng)).mean(), estimates(gated).mean()
    assert abs(after / before - keep**2) < 0.03


def test_the_plain_count_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = (binned(x) for x in normal_pair(0.5, np.random.default_rng(0)))
    pairs, *single = (len(np.unique(x, axis=0)) for x in (np.c_[first, second], first, second))
    correction = (pairs - sum(single) + 1) / (2 * ROWS)
    found = information_of_bins(first, second)[0] + correction
    assert found == pytest.approx(metrics.mutual_info_score(first, second), abs=1e-12)


def test_gates_on_rectified_values_leave_less():
    keep = 0.7

    def rectified(rng):
        return tuple(np.maximum(x, 0) for x in normal_pair(0.8, rng))

    def gated(rng):
        return tuple(np.where(rng.random(ROWS) < keep, x, 0) for x in rectified(rng))

    assert estimates(gated).mean() < (keep**2 - 0.05) * estimates(rectified).mean()


def test_a_repeated_value_has_a_bin_of_its_own_and_the_others_have_equal_counts():
    values = np.concatenate([np.zeros(300), np.full(50, 0.5), np.linspace(-1, 1, 641)[1:]])
    found = binned(values)
    assert set(values[found == found[0]]) == {0.0}
    assert len(set(found[values == 0.5])) == 1
    counts = np.bincount(found)
    assert len(counts) == BINS + 2
    assert all(39 <= count <= 41 for count in np.sort(counts)[:BINS])


def test_no_more_bins_than_twice_as_many_as_asked_for():
    values = np.repeat(np.arange(50.0), 20)
    assert np.bincount(binned(values, bins=4)).size == 8
    assert set(binned(np.ones(10))) == {0}


def test_second_order_of_equally_correlated_channels():
    n, r = 5, 0.4
    covariance = np.full((n, n), r) + (1 - r) * np.eye(n)
    shares = np.array([1 + (n - 1) * r] + [1 - r] * (n - 1)) / n
    found = second_order(covariance)
    np.testing.assert_allclose(found["correlation"], r)
    np.testing.assert_allclose(found["correlation_distance"], r)
    np.testing.assert_allclose(
        found["covariance_distance"],
        np.linalg.norm(covariance - np.eye(n)) / np.linalg.norm(np.eye(n)),
    )
    np.testing.assert_allclose(found["effective_rank"], np.exp(-np.sum(shares * np.log(shares))))
    np.testing.assert_allclose(
        second_order(9 * covariance)["effective_rank"], found["effective_rank"]
    )


def test_second_order_where_little_exists():
    white = second_order(np.eye(3))
    assert [
        white[name] for name in ("correlation", "correlation_distance", "covariance_distance")
    ] == [0, 0, 0]
    assert abs(white["effective_rank"] - 3) < 1e-9
    dead = second_order(np.diag([0.0, 4.0, 4.0]))
    assert (dead["constant"], dead["correlation"]) == (1, 0)
    assert abs(dead["effective_rank"] - 2) < 1e-9
    single = second_order(np.ones((1, 1)))
    assert np.isnan(single["correlation"])
    assert single["effective_rank"] == 1
    nothing = second_order(np.zeros((2, 2)))
    assert np.isnan(nothing["correlation"]) and np.isnan(nothing["effective_rank"])
    assert nothing["covariance_distance"] == 1
    assert np.isnan(second_order(np.full((2, 2), np.inf))["covariance_distance"])


def test_the_reservoir_is_a_uniform_sample():
    kept = np.zeros(40)
    for seed in range(400):
        stream = RunningCovariance(rows=10, seed=[seed])
        for part in np.split(np.arange(40.0)[:, None], [7, 8, 25]):
            stream.add(part)
        assert len(set(stream.reservoir.ravel())) == 10
        kept[stream.reservoir.ravel().astype(int)] += 1
    # Each row is kept in 100 of 400 runs, give or take 8.7.
    assert kept.min() > 60
    assert kept.max() < 140


def test_covariance_of_parts_of_any_size_and_of_large_means():
    values = (
        np.random.default_rng(0).normal(size=(1000, 3))
        @ np.array([[1, 2, 0], [0, 1, 1], [0, 0, 0.1]])
        + 100
    )
    stream = RunningCovariance(rows=10, seed=[0])
    for part in np.split(values, [1, 400, 400, 999]):
        stream.add(part)
    np.testing.assert_allclose(
        stream.covariance,
        np.cov(values.astype("float32").astype("float64").T, bias=True),
        rtol=1e-9,
        atol=1e-12,
    )


def test_values_that_are_not_finite_are_told():
    stream = RunningCovariance(rows=10, seed=[0])
    stream.add(np.array([[1.0, np.inf], [2.0, 3.0]]))
    found = stream.measured(pairs=1)
    assert np.isnan(found["correlation"]) and np.isnan(found["mutual_information"])
    assert found["pairs"] == 0


def test_statistics_of_the_batch_do_not_pass_for_information():
    rng = np.random.default_rng(0)

    def information(align):
        stream = RunningCovariance(rows=ROWS, seed=[0], align=align)
        for _ in range(16):
            rectified = np.maximum(rng.normal(size=(256, 2)), 0).astype("float32")
            stream.add((rectified - rectified.mean(0)) / rectified.std(0))
        return stream.measured(pairs=1)["mutual_information"]

    assert information(align=False) > 0.1
    assert abs(information(align=True)) < 0.02


def test_levels_that_do_not_move_stay_apart():
    stream = RunningCovariance(rows=100, seed=[0], align=True)
    stream.add(np.array([[1.0]] * 5 + [[2.0]] * 3))
    stream.add(np.array([[1.0]] * 3 + [[2.0]] * 5))
    assert sorted(stream.reservoir.ravel()) == [1.0] * 8 + [2.0] * 8
