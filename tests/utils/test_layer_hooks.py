import keras
import numpy as np
import pytest
from keras import layers

from keras_ic.utils.layer_hooks import PooledMoments, Recorder, input_moments, replaced_calls


def test_calls_are_put_back_after_an_error():
    layer = layers.Dense(2)
    x = np.ones((1, 3), "float32")
    before = keras.ops.convert_to_numpy(layer(x))
    with pytest.raises(KeyboardInterrupt), replaced_calls({layer: lambda x: x}):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), x)
        raise KeyboardInterrupt
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), before)


def test_a_recorder_gives_a_record_a_call_and_keeps_nothing():
    shared, unused = layers.Dense(3), layers.Dense(3)
    inputs = keras.Input((3,))
    x = shared(layers.Dropout(0.5, seed=1)(layers.BatchNormalization()(shared(inputs))))
    model = keras.Model(inputs, x)
    state = [np.array(keras.ops.convert_to_numpy(value)) for value in model.variables]

    def look(inputs, mask, draws, own):
        return keras.ops.sum(inputs) + draws[0], own()

    looks = {"shared": (shared, look), "unused": (unused, look)}
    recorder = Recorder(model, looks, training=True, drawn=True)
    batch = {"inputs": np.ones((2, 3), "float32"), "draws": np.array([10.0], "float32")}
    records = recorder.predict_on_batch(batch)
    assert list(records) == ["shared"] and len(records["shared"]) == 2
    assert records["shared"][0] == 16
    for before, value in zip(state, model.variables, strict=True):
        np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(value))


def test_moments_of_masked_inputs_pool():
    x = np.random.default_rng(0).normal(size=(6, 4, 5, 3)).astype("float32")
    mask = np.random.default_rng(1).random((6, 4)) < 0.5
    total = PooledMoments()
    for part in (slice(0, 1), slice(1, 6)):
        moments = input_moments(keras.ops.convert_to_tensor(x[part]), mask[part], -1)
        total.add(keras.ops.convert_to_numpy(moments))
    kept = x[mask].reshape(-1, 3).astype("float64")
    np.testing.assert_allclose(total.mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(total.variance, kept.var(0), rtol=1e-5)
    assert total.count.tolist() == [len(kept)] * 3
