"""The policies of lower and higher precision: dtypes as asked for, and the numbers of float32 to
their precision.
"""

import keras
import numpy as np
import pytest
from keras import ops

from tests.autodiff import HAS_FLOAT64, to_numpy
from tests.conformance.registry import with_policy

# How far, as a share of the largest output, a whole network may be from itself in float32.
TOLERANCE = {
    "float64": 1e-3,
    "float16": 0.1,
    "bfloat16": 0.5,
    "mixed_float16": 0.1,
    "mixed_bfloat16": 0.5,
}


@pytest.mark.parametrize("policy", TOLERANCE)
def test_precision(entry, policy):
    if policy == "float64" and not HAS_FLOAT64:
        pytest.skip("JAX has float64 only where JAX_ENABLE_X64 is 1")
    x, _ = entry.samples(4)
    given = entry.built()
    expected = to_numpy(ops.stop_gradient(given(x, training=False)))
    keras.config.set_dtype_policy(policy)
    model = with_policy(given, policy)
    compute, variable = (
        getattr(keras.DTypePolicy(policy), name) for name in ("compute_dtype", "variable_dtype")
    )
    dtypes = {keras.backend.standardize_dtype(weight.dtype) for weight in model.weights}
    # Normalization has a count.
    assert {dtype for dtype in dtypes if "int" not in dtype} == {variable}
    x = x if entry.takes_ids else ops.cast(x, compute)
    for training in (False, True):
        outputs = ops.stop_gradient(model(x, training=training))
        assert keras.backend.standardize_dtype(outputs.dtype) == compute
        assert np.all(np.isfinite(to_numpy(outputs)))
        if not training:
            assert (
                np.abs(to_numpy(outputs) - expected).max()
                <= TOLERANCE[policy] * np.abs(expected).max()
            )
    for weight in model.weights:
        assert np.all(np.isfinite(to_numpy(weight.value)))
