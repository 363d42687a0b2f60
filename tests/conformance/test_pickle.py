"""A model goes through `pickle` and `copy.deepcopy` with its weights and its places in the random
streams.
"""

import copy
import pickle

import numpy as np
import pytest
from keras import ops

from tests.autodiff import to_numpy
from tests.conformance.registry import mute


@pytest.mark.parametrize(
    "way",
    [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy],
    ids=["pickle", "deepcopy"],
)
def test_pickle(entry, way):
    model = entry.built()
    x, _ = entry.samples(4)
    model(x, training=True)
    other = way(model)
    for each in (other, model):
        mute(each)  # Keras keeps no place in the random stream of its Dropout.
    for training in (False, True):
        one, two = (
            to_numpy(ops.stop_gradient(each(x, training=training))) for each in (other, model)
        )
        np.testing.assert_array_equal(one, two)
