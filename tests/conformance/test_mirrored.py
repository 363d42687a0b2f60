"""Under MirroredStrategy with two replicas: what both hold agrees after training, and the saved
model predicts what the distributed one does.
"""

import keras
import numpy as np
import pytest


def test_mirrored(entry, request, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.distribute is TensorFlow's")
    strategy = request.getfixturevalue("strategy")
    with strategy.scope():
        model = entry.compiled()
    x, y = entry.samples(12)
    before = model.get_weights()
    model.fit(x, y, batch_size=6, epochs=2, shuffle=False, verbose=0)
    assert any(
        not np.array_equal(one, two) for one, two in zip(before, model.get_weights(), strict=True)
    )
    stock = {
        id(weight)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
    }
    for weight in model.weights:
        one, two = (value.numpy() for value in strategy.experimental_local_results(weight.value))
        assert np.all(np.isfinite(one))
        if id(weight) not in stock:  # which Keras lets drift apart
            np.testing.assert_array_equal(one, two)
    if stock:
        pytest.skip(
            "of the statistics of Keras's BatchNormalization, which drift apart on the replicas, a"
            " file holds those of the first alone"
        )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = loaded.predict(x[:6], verbose=0)
    np.testing.assert_allclose(
        model.predict(x[:6], verbose=0), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )
