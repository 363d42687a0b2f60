"""Eager, as a graph and compiled by XLA: the same predictions, and the same masks and weights from
a training step; of deep networks in float64.
"""

import keras
import numpy as np
import pytest

from tests.autodiff import HAS_FLOAT64
from tests.conformance.registry import mute

MODES = {
    "tensorflow": {"eager": {"run_eagerly": True}, "graph": {}, "XLA": {"jit_compile": True}},
    "jax": {"eager": {"run_eagerly": True, "jit_compile": False}, "XLA": {"jit_compile": True}},
    "torch": {"eager": {}},
}[keras.backend.backend()]


def test_modes(entry):
    if len(MODES) == 1:
        pytest.skip("Keras runs torch eagerly; the kernels' tests compile them with torch.compile")
    if entry.deep:
        if not HAS_FLOAT64:
            pytest.skip("so deep a network needs float64, which JAX has with JAX_ENABLE_X64=1")
        keras.config.set_dtype_policy("float64")
        keras.config.set_floatx("float64")
    x, y = entry.samples(8)
    found = []
    for options in MODES.values():
        model = entry.compiled(**options)
        mute(model)  # On TensorFlow, Keras's Dropout draws other masks under XLA.
        loss = model.train_on_batch(x, y)
        found.append((model.predict_on_batch(x), loss, model.get_weights()))
    for predictions, loss, weights in found[1:]:
        np.testing.assert_allclose(loss, found[0][1], rtol=1e-4)
        np.testing.assert_allclose(
            predictions, found[0][0], rtol=1e-3, atol=1e-3 * np.abs(found[0][0]).max()
        )
        for one, two in zip(weights, found[0][2], strict=True):
            np.testing.assert_allclose(
                one, two, rtol=1e-3, atol=1e-3 * max(np.abs(two).max(), 1e-3)
            )
