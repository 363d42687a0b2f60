"""What two runs of the same configuration must have in common."""

import keras
import numpy as np

from keras_ic import saving
from keras_ic.training import read


def epochs(folder):
    """The epochs of a record without what no two runs share."""
    return [
        {name: value for name, value in epoch.items() if "seconds" not in name}
        for epoch in read(folder).epochs
    ]


def weights(folder):
    """All variables of the model of a run and of its optimizer."""
    model = saving.load_model(folder / "model.keras")
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assert_same_run(one, two, rtol=0.0):
    """Of two folders: the numbers of every epoch, and every weight to the last bit."""
    assert len(epochs(one)) == len(epochs(two))
    for ours, theirs in zip(epochs(one), epochs(two), strict=True):
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=rtol)
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(a, b)
