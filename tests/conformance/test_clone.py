"""`keras.models.clone_model` gives a model of the same function once it has the weights, and shares
none with the given one.
"""

import keras
import numpy as np
from keras import ops

from tests.autodiff import to_numpy


def test_clone(entry):
    model = entry.built()
    x, _ = entry.samples(4)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    before = to_numpy(ops.stop_gradient(model(x, training=False)))
    np.testing.assert_array_equal(to_numpy(ops.stop_gradient(clone(x, training=False))), before)
    for weight in clone.weights:
        weight.assign(ops.zeros(weight.shape, weight.dtype))
    np.testing.assert_array_equal(to_numpy(ops.stop_gradient(model(x, training=False))), before)
