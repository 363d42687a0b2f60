"""The masks: their rate, their independence, and where their randomness comes from."""

import gc
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_ic
from keras_ic import kernels
from tests.autodiff import to_numpy

WIDE = np.random.default_rng(0).normal(size=(200, 50)).astype("float32")


def masks(layer, steps, x=WIDE):
    """What the layer keeps in so many training steps, (steps, *x.shape), as 0 and 1."""
    layer.build(x.shape)
    return np.stack([to_numpy(layer._draw(ops.convert_to_tensor(x))) for _ in range(steps)]).astype(
        "float64"
    )


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.5, 0.9])
def test_the_rate_of_a_million_gates(rate):
    kept = masks(keras_ic.IC(rate, seed=0), 100)
    assert abs(1 - kept.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / kept.size) + 2**-16


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_gates_do_not_know_of_each_other(rate):
    kept = masks(keras_ic.IC(rate, seed=0), 60)
    noise = 5 / np.sqrt(kept.size)
    # Neighbours in the words that are drawn (1 shares a word with its neighbour), rows, and steps.
    flat = kept.reshape(60, -1)
    for lag in (1, 2, 3, 4, 8, 50, 100):
        assert abs(correlation(flat[:, :-lag], flat[:, lag:])) < noise, lag
    for lag in (1, 2, 7):
        assert abs(correlation(kept[:-lag], kept[lag:])) < noise, lag
    # The number kept in a step and in a column is binomial: neither too even nor too uneven.
    for axes in ((1, 2), (0, 1), (0, 2)):
        counts = kept.sum(axes)
        n = kept.size / counts.size
        statistic = ((counts - n * (1 - rate)) ** 2).sum() / (n * rate * (1 - rate))
        assert abs(statistic - counts.size) < 5 * np.sqrt(2 * counts.size), axes


def test_layers_with_seeds_of_their_own_do_not_share_masks_at_any_step():
    # Neighbouring seeds too, against each other at every pair of steps.
    streams = [masks(keras_ic.IC(0.5, seed=seed), 8) for seed in (0, 1, 2, 2**31 - 1)]
    noise = 5 / np.sqrt(WIDE.size)
    for i, one in enumerate(streams):
        for other in streams[:i]:
            for a in one:
                for b in other:
                    assert abs(correlation(a, b)) < noise


def test_the_seed_decides():
    for rate in (0.05, 0.5):
        np.testing.assert_array_equal(
            masks(keras_ic.IC(rate, seed=7), 3), masks(keras_ic.IC(rate, seed=7), 3)
        )
        assert not np.array_equal(
            masks(keras_ic.IC(rate, seed=7), 3), masks(keras_ic.IC(rate, seed=8), 3)
        )


def test_the_global_seed_decides_where_none_is_given():
    def two():
        return masks(keras_ic.IC(0.5), 2), masks(keras_ic.IC(0.5), 2)

    keras.utils.set_random_seed(5)
    one, other = two()
    keras.utils.set_random_seed(5)
    again, other_again = two()
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(other, other_again)
    assert not np.array_equal(one, other)


def test_masks_do_not_depend_on_the_values_and_reach_odd_shapes():
    for shape in ((3, 5), (1, 7), (5, 3, 3), (7, 1)):
        x = np.ones(shape, "float32")
        kept = masks(keras_ic.IC(0.5, seed=0), 100, x)
        assert kept.shape == (100, *shape)
        assert np.abs(kept.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(100)


def test_fit_draws_another_mask_every_step_and_traces_once():
    class Counting(keras_ic.IC):
        calls = 0

        def call(self, inputs, training=None, mask=None):
            Counting.calls += 1
            return super().call(inputs, training=training, mask=mask)

    layer = Counting(0.5, seed=0)
    model = keras.Sequential([keras.Input((50,)), layer, layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(WIDE, WIDE[:, :1], batch_size=20, epochs=1, verbose=0)
    traced = Counting.calls
    model.fit(WIDE, WIDE[:, :1], batch_size=20, epochs=3, initial_epoch=1, verbose=0)
    assert list(to_numpy(layer.seed_generator.state)) == [0, 30]
    if keras.backend.backend() != "torch":  # which runs without tracing
        assert Counting.calls == traced


@pytest.mark.parametrize("jit", [False, True])
def test_eager_and_compiled_steps_draw_the_same_masks(jit):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("covered by the kernels' own compile tests")

    def network():
        return keras.Sequential(
            [
                keras.Input((50,)),
                keras_ic.IC(0.5, seed=0),
                layers.Dense(3, kernel_initializer="ones"),
            ]
        )

    results = []
    for eager in (True, False):
        model = network()
        model.compile(
            keras.optimizers.SGD(0.01), "mse", run_eagerly=eager, jit_compile=jit and not eager
        )
        model.fit(WIDE, WIDE[:, :3], batch_size=50, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow():
    layer = keras_ic.IC(0.5, seed=0)
    x = ops.convert_to_tensor(WIDE)

    def objects_after(steps):
        for _ in range(steps):
            layer(x, training=True)
        gc.collect()
        return len(gc.get_objects())

    objects_after(20)
    assert objects_after(100) - objects_after(20) < 30


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="ranks of torch.distributed")
def test_ranks_of_torch_distributed_draw_differently(monkeypatch):
    import torch

    def at(rank):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        return to_numpy(kernels.draw((100, 100), 0.5, torch.tensor([3, 0], dtype=torch.int32)))

    assert np.array_equal(at(1), at(1))
    assert abs(correlation(at(0), at(1))) < 0.05


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="sharding of JAX arrays")
def test_every_device_of_a_jax_mesh_draws_its_own_part(tmp_path):
    script = """
import keras, keras_ic, numpy as np
keras.utils.set_random_seed(0)
keras.distribution.set_distribution(keras.distribution.DataParallel())
layer = keras_ic.IC(0.5, seed=0)
model = keras.Sequential([keras.Input((64,)), layer, keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(128, 64)).astype("float32")
model.fit(x, x[:, :1], batch_size=128, shuffle=False, verbose=0)
import jax
from keras_ic import kernels
kept = np.asarray(jax.jit(lambda: kernels.draw((128, 64), 0.5, np.array([0, 0], "uint32")))())
np.save("kept.npy", kept)
np.save("weights.npy", np.concatenate([w.ravel() for w in model.get_weights()]))
"""
    results = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        environment = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        subprocess.run([sys.executable, "-c", script], check=True, cwd=folder, env=environment)
        results.append((np.load(folder / "kept.npy"), np.load(folder / "weights.npy")))
    (kept, alone), (kept_of_two, shared) = results
    np.testing.assert_array_equal(kept, kept_of_two)
    np.testing.assert_allclose(alone, shared, rtol=1e-4, atol=1e-5)
    assert abs(correlation(kept[:64], kept[64:])) < 5 / 64
