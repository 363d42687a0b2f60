"""A frozen model computes in training what it computes at inference, and learns nothing from it."""

import keras
import numpy as np
from keras import ops

from tests.autodiff import to_numpy


def test_frozen(entry):
    model = entry.built()
    x, _ = entry.samples(4)
    model.trainable = False
    assert model.trainable_variables == []
    # Stock Dropout drops in frozen models too; a model that has some is left without.
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    before = model.get_weights()
    at_inference, in_training = (
        to_numpy(ops.stop_gradient(model(x, training=training))) for training in (False, True)
    )
    np.testing.assert_array_equal(in_training, at_inference)
    for one, two in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, two)
