"""One canary for each private name of Keras that the package uses."""

import keras
import numpy as np
from keras import layers

from keras_ic.utils import keras_internals


def small():
    inputs = keras.Input((3,), name="given")
    shared = layers.Dense(3, name="shared")
    return keras.Model(inputs, layers.Dense(2, name="end")(shared(shared(inputs))))


# --- the graph of a model -------------------------------------------------------------------------


def test_functional_and_its_constructor():
    class Own(keras.Model):
        def __init__(self, inputs, outputs, extra, name=None):
            super().__init__(inputs, outputs, name=name)

    class Same(keras.Model):
        pass

    assert isinstance(small(), keras_internals.Functional)
    assert keras_internals.functional_like_constructor(Same)
    assert not keras_internals.functional_like_constructor(Own)


def test_safe_mode_scope():
    config = layers.Lambda(lambda x: x + 1.0).get_config()
    with keras_internals.SafeModeScope(False):
        assert layers.Lambda.from_config(config)(np.zeros((1, 1)))[0, 0] == 1.0


def test_functional_of():
    model = keras.Sequential([layers.Dense(2)])
    assert keras_internals.functional_of(model) is None
    model.build((None, 3))
    assert isinstance(keras_internals.functional_of(model), keras_internals.Functional)


def test_nodes_in_order():
    nodes = keras_internals.nodes_in_order(small())
    assert [node.operation.name for node in nodes] == ["shared", "shared", "end"]
    assert nodes[1].input_tensors[0] is nodes[0].outputs[0]
    assert nodes[0].arguments.args == (nodes[0].input_tensors[0],)


def test_producer_of_and_is_read():
    model = small()
    assert keras_internals.producer_of(model.inputs[0]).name == "given"
    assert keras_internals.is_read(keras_internals.producer_of(model.inputs[0]))
    assert not keras_internals.is_read(model.get_layer("end"))


def test_without_calls():
    operation = keras_internals.producer_of(keras.Input((3,)) + 1.0)
    copied = keras_internals.without_calls(operation)
    output = copied(keras.Input((4,)), 1.0)
    assert output.shape == (None, 4) and keras_internals.producer_of(output) is copied


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


def test_held_by_and_blank_double():
    layer = layers.LSTM(2, activation="relu")
    assert keras_internals.held_by(layer)["cell"] is layer.cell
    double = keras_internals.blank_double(layer)
    assert double.get_config() == layer.get_config() and type(double) is layers.LSTM
    vars(double)["cell"] = keras_internals.blank_double(layer.cell)
    vars(double.cell)["activation"] = keras.activations.tanh
    assert (
        double.get_config()["activation"] == "tanh" and layer.get_config()["activation"] == "relu"
    )


# --- compilation ----------------------------------------------------------------------------------


def test_compile_arguments():
    model = small()
    assert keras_internals.compile_arguments(model) is None
    loss = keras.losses.MeanSquaredError()
    model.compile("sgd", loss)
    assert keras_internals.compile_arguments(model)["loss"] is loss


def test_learning_rates():
    def rate():
        return 0.5

    optimizer = keras.optimizers.SGD(rate)
    assert keras_internals.learning_rate_as_given(optimizer) is rate
    double = keras_internals.double_with_rate(optimizer, 0.0)
    assert isinstance(double.get_config()["learning_rate"], float)
    assert keras_internals.learning_rate_as_given(optimizer) is rate
