"""A thousand steps in half precision: the moving statistics stay those of float64, and a network
goes on learning.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_ic
from tests.autodiff import to_numpy

STEPS = 1000
BFLOAT16 = pytest.mark.slow(reason="a thousand steps in the other of two half precisions")


@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [
        ("mixed_float16", 1e-3),
        pytest.param("mixed_bfloat16", 1e-2, marks=BFLOAT16),
        ("float16", 0.05),
    ],
)
def test_moving_statistics_over_a_thousand_batches(policy, tolerance):
    """`float16` keeps the statistics in 11 bits, in which a small change rounds to none."""
    random = np.random.default_rng(0)
    compute = keras.DTypePolicy(policy).compute_dtype
    batches = [
        to_numpy(
            ops.cast(
                (random.normal(size=(32, 3)) * [0.1, 1, 30] + [0, 5, -100]).astype("float32"),
                compute,
            )
        )
        for _ in range(20)
    ]
    layer = keras_ic.IC(0.1, momentum=0.9, dtype=policy, seed=0)
    tensors = [ops.cast(batch, compute) for batch in batches]
    mean, variance = np.zeros(3), np.ones(3)
    for step in range(STEPS):
        outputs = layer(tensors[step % 20], training=True)
        x = batches[step % 20].astype("float64")
        mean, variance = 0.9 * mean + 0.1 * x.mean(0), 0.9 * variance + 0.1 * x.var(0)
        if step % 100 == 99:
            assert np.all(np.isfinite(to_numpy(ops.stop_gradient(outputs))))
            moving = [to_numpy(weight.value) for weight in layer.weights[2:]]
            assert np.all(moving[1] >= 0)
            assert np.all(np.abs(moving[0] - mean) <= tolerance * np.sqrt(variance + mean**2))
            np.testing.assert_allclose(moving[1], variance, rtol=2 * tolerance)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=BFLOAT16)]
)
def test_a_network_learns_for_a_thousand_steps(policy):
    keras.config.set_dtype_policy(policy)
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 256)
    x = (random.normal(size=(4, 12))[y] + 0.3 * random.normal(size=(256, 12))).astype(
        "float32"
    ) * 50
    stack = [
        keras.Input((12,)),
        keras_ic.IC(0.1, seed=0),
        layers.Dense(16, "relu"),
        keras_ic.IC(0.1, seed=1),
        layers.Dense(4, dtype="float32"),
    ]
    model = keras.Sequential(stack)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(x, y, batch_size=16, epochs=STEPS // 16, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.3 * losses[0]
    for weight in model.weights:
        assert np.all(np.isfinite(to_numpy(weight.value)))
