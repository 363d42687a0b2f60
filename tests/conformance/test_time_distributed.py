"""In `TimeDistributed`, a model is applied to each step, and its masks are those of each step."""

import numpy as np
from keras import layers, ops

from tests.autodiff import to_numpy


def test_time_distributed(entry):
    model = entry.built()
    x, _ = entry.samples(6)
    steps = x.reshape(2, 3, *entry.shape)
    wrapped = layers.TimeDistributed(model)
    together = to_numpy(ops.stop_gradient(wrapped(steps, training=False)))
    apart = to_numpy(ops.stop_gradient(model(x, training=False)))
    np.testing.assert_allclose(
        together.reshape(apart.shape), apart, rtol=1e-3, atol=1e-4 * np.abs(apart).max()
    )
    learned = to_numpy(ops.stop_gradient(wrapped(steps, training=True)))
    assert learned.shape == together.shape and np.all(np.isfinite(learned))
    assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())
