"""`keras.ops.vectorized_map` over samples, the vmap of the backend: what the model gives each of
them.
"""

import keras
import numpy as np
import pytest
from keras import ops

from tests.autodiff import to_numpy


def test_vectorized_map(entry):
    model = entry.built()
    if keras.backend.backend() == "torch" and any(
        "conv" in type(layer).__name__.lower() for layer in model._flatten_layers()
    ):
        pytest.skip("torch's vmap has no convolution of channels_last images")
    if (
        len(entry.shape) == 2
        and keras.backend.backend() == "tensorflow"
        and keras.__version__.startswith("3.12.")
    ):
        pytest.skip("Keras 3.12 with TensorFlow 2.18 maps a Dense layer over sequences wrongly")
    x, _ = entry.samples(4)
    mapped = ops.vectorized_map(
        lambda sample: model(ops.expand_dims(sample, 0), training=False)[0],
        ops.convert_to_tensor(x),
    )
    expected = to_numpy(ops.stop_gradient(model(x, training=False)))
    np.testing.assert_allclose(
        to_numpy(ops.stop_gradient(mapped)), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )
