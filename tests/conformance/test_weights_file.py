"""A file of weights moves them, and the places in the random streams, into a model that began with
others.
"""

import numpy as np
from keras import ops

from tests.autodiff import to_numpy
from tests.conformance.registry import ics


def test_weights_file(entry, tmp_path):
    model, other = entry.built(), entry.built(seed=1)
    x, _ = entry.samples(4)
    model(x, training=True)
    assert any(
        not np.array_equal(one, two)
        for one, two in zip(model.get_weights(), other.get_weights(), strict=True)
    )
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(ics(model), ics(other), strict=True):
        if one.rate > 0:
            np.testing.assert_array_equal(
                to_numpy(one.seed_generator.state), to_numpy(two.seed_generator.state)
            )
    one, two = (to_numpy(ops.stop_gradient(each(x, training=False))) for each in (model, other))
    np.testing.assert_array_equal(one, two)
