"""`export` writes a SavedModel that computes the same, for TensorFlow without Keras."""

import keras
import numpy as np
import pytest


def test_saved_model(entry, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("SavedModels are TensorFlow's")
    import tensorflow as tf

    model = entry.built()
    x, _ = entry.samples(4)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    served = loaded.serve(tf.cast(x, model.inputs[0].dtype))
    expected = model(x, training=False).numpy()
    np.testing.assert_allclose(
        served.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
