"""Gradient checkpointing: one mask for both passes and statistics counted once, or an error."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_ic
from tests.autodiff import to_numpy

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


def gradient(function, x):
    """The gradient of the sum of `function(x)` in eager mode."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(function(x))
        return tape.gradient(loss, x)
    x = x.clone().requires_grad_()
    function(x).sum().backward()
    return x.grad


needs_a_second_pass = pytest.mark.skipif(
    BACKEND == "jax", reason="jax.checkpoint repeats a trace, and never calls a layer again"
)


@needs_a_second_pass
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_second_pass_is_refused(rate):
    layer = keras_ic.IC(rate, seed=0)
    layer.build((None, 6))
    dense = layers.Dense(6)
    dense.build((None, 6))
    block = keras.remat(lambda x: dense(layer(x, training=True)))
    with pytest.raises(ValueError, match=r"second time in the backward pass.*Received: a call"):
        gradient(block, ops.convert_to_tensor(X))


@needs_a_second_pass
def test_a_second_pass_is_harmless_where_nothing_is_drawn_or_learned():
    layer = keras_ic.IC(0.5, seed=0)
    layer.build((None, 6))
    block = keras.remat(lambda x: layer(x, training=False))
    got = to_numpy(gradient(block, ops.convert_to_tensor(X)))
    np.testing.assert_allclose(got, np.full(X.shape, 1 / np.sqrt(1.001)), rtol=1e-5)


@pytest.mark.parametrize("eager", [True, False])
def test_remat_scope_leaves_the_layer_out(eager):
    results = []
    for mode in ("full", None):
        keras.utils.set_random_seed(0)
        with keras.RematScope(mode=mode):
            layer = keras_ic.IC(0.5, momentum=0.5, seed=0)
        model = keras.Sequential([keras.Input((6,)), layer, layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=eager)
        model.fit(X, X[:, :1], batch_size=8, shuffle=False, verbose=0)
        results.append([*model.get_weights(), to_numpy(layer.seed_generator.state)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert list(results[0][-1]) == [0, 2]
