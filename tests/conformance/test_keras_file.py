"""A `.keras` file gives back the model: the same predictions, the same weights to the bit, the same
masks next.
"""

import keras
import numpy as np

from tests.autodiff import to_numpy
from tests.conformance.registry import mute


def test_keras_file(entry, tmp_path):
    model = entry.built()
    x, _ = entry.samples(4)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, two in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    for each in (loaded, model):
        mute(each)  # Keras saves no place in the random stream of its Dropout.
    for training in (False, True):
        one, two = (
            to_numpy(keras.ops.stop_gradient(each(x, training=training)))
            for each in (loaded, model)
        )
        np.testing.assert_array_equal(one, two)
