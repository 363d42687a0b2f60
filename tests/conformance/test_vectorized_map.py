"""`keras.ops.vectorized_map` over samples, the vmap of the backend: what the model gives each of them."""

import numpy as np
from keras import ops

from tests.autodiff import to_numpy


def test_vectorized_map(entry):
    model = entry.built()
    x, _ = entry.samples(4)
    mapped = ops.vectorized_map(lambda sample: model(ops.expand_dims(sample, 0), training=False)[0], ops.convert_to_tensor(x))
    expected = to_numpy(ops.stop_gradient(model(x, training=False)))
    np.testing.assert_allclose(to_numpy(ops.stop_gradient(mapped)), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
