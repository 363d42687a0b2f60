"""One canary for each private name of Keras that the package uses."""

import keras
import numpy as np
from keras import layers

from keras_ic.utils import keras_internals

# --- layers ---------------------------------------------------------------------------------------


def test_sublayers():
    wrapped = layers.TimeDistributed(layers.Dense(2))
    outer = keras.Sequential([wrapped])
    assert keras_internals.sublayers(outer) == [outer, wrapped, wrapped.layer]
    assert keras_internals.direct_sublayers(outer) == [wrapped]


# --- tensors --------------------------------------------------------------------------------------


def test_mask_of():
    x = np.array([[[0.0], [1.0]]], "float32")
    masked = layers.Masking(0.0)(x)
    found = keras.ops.convert_to_numpy(keras_internals.mask_of(masked))
    np.testing.assert_array_equal(found, [[False, True]])
    assert keras_internals.mask_of(keras.ops.convert_to_tensor(x)) is None


# --- data -----------------------------------------------------------------------------------------


def test_data_adapter():
    adapter = keras_internals.data_adapter(np.arange(5.0), batch_size=2)
    assert adapter.num_batches == 3
    adapter.on_epoch_begin()
    batches = list(adapter.get_numpy_iterator())
    adapter.on_epoch_end()
    assert [len(keras.utils.unpack_x_y_sample_weight(x)[0]) for x in batches] == [2, 2, 1]
    assert keras_internals.data_adapter((x for x in [(np.ones(2),)]), None).num_batches is None


def test_evaluate_again():
    class Again(keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            self.first, self.second = logs, keras_internals.evaluate_again(self.model)

    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.random.default_rng(0).normal(size=(2, 10, 2))
    again = Again()
    model.fit(x, y[:, :1], validation_split=0.4, epochs=2, callbacks=[again], verbose=0)
    assert again.first == again.second
