"""What stands at masked positions is in no statistic, and changes nothing anywhere else."""

import numpy as np
import pytest
from keras import ops

from tests.autodiff import to_numpy
from tests.conformance.registry import ics


def test_masks(entry):
    if len(entry.shape) > 2 or (len(entry.shape) == 1 and not entry.takes_ids):
        pytest.skip("a mask is of the steps of sequences")
    model = entry.built()
    if len(ics(model)) != 1 or entry.kind != "layer":
        pytest.skip("the mask of one layer is looked at")
    (layer,) = ics(model)
    layer.momentum = 0.0  # the moving statistics become those of the batch
    x, _ = entry.samples(8)
    if entry.takes_ids:
        x[:, -2:] = 0
        outputs = to_numpy(ops.stop_gradient(model(x, training=True)))
        valid = to_numpy(model.layers[0](x))[x > 0]
    else:
        mask = np.random.default_rng(0).uniform(size=x.shape[:2]) < 0.6
        outputs = None
        for junk in (0.0, 1e30, np.nan):
            # The same masks of the dropout each time.
            layer.seed_generator.state.assign(ops.convert_to_tensor([3, 5], "uint32"))
            spoiled = np.where(mask[..., np.newaxis], x, junk).astype("float32")
            found = to_numpy(ops.stop_gradient(layer(spoiled, training=True, mask=mask)))[mask]
            assert outputs is None or np.array_equal(found, outputs)
            outputs = found
        valid = x[mask]
    assert np.all(np.isfinite(outputs))
    mean, variance = layer.get_weights()[-2:]
    np.testing.assert_allclose(mean, valid.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, valid.var(0), rtol=1e-4, atol=1e-5)
