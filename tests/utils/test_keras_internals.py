"""One canary for each private name of Keras that the package uses."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_ic.utils import keras_internals
from keras_ic.utils import keras_internals as internals


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


X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


Y = X[:, :1]


def network(**compiled):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="a"), layers.Dense(1)])
    if compiled:
        model.compile(**compiled)
    return model


def test_sublayers_are_all_layers_in_their_order():
    inner = network()
    model = keras.Sequential(
        [keras.Input((4,)), inner, layers.SpectralNormalization(layers.Dense(1))]
    )
    found = internals.sublayers(model)
    assert found[0] is model and found.index(inner) < found.index(inner.get_layer("a"))
    assert model.layers[-1].layer in found


def test_a_compiled_model_is_built_from_a_batch():
    model = network(optimizer="sgd", loss="mse", metrics=["mae"])
    assert not internals.is_fully_built(model)
    internals.build_from_batch(model, (X, Y))
    assert internals.is_fully_built(model)
    assert len(internals.compiled_losses(model)) == 1


@pytest.mark.tensorflow_only
def test_fit_builds_by_the_method_of_that_name():
    model = network(optimizer="sgd", loss="mse", metrics=["mae"])
    calls = []

    def build(iterator=None, data_batch=None):
        calls.append(iterator is not None)
        internals.build_from_batch(model, (X, Y))

    assert hasattr(model, internals.SYMBOLIC_BUILD)
    setattr(model, internals.SYMBOLIC_BUILD, build)
    model.fit(X, Y, verbose=0)
    assert calls == [True]
    model.train_on_batch(X, Y)
    assert calls == [True, False]


def test_a_callback_sets_the_epoch_that_fit_begins_with():
    class Resumed(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            assert internals.initial_epoch(self.model) == 0
            internals.set_initial_epoch(self.model, 2)
            assert internals.initial_epoch(self.model) == 2

    model = network(optimizer="sgd", loss="mse")
    assert model.fit(X, Y, epochs=3, callbacks=[Resumed()], verbose=0).epoch == [2]


def test_a_model_whose_call_has_no_training_argument():
    class Plain(keras.Model):
        def call(self, x):
            return 2 * x

    class InTraining(keras.Model):
        def call(self, x, training=False):
            return 3 * x if training else x

    for model, factor in ((Plain(), 2), (InTraining(), 3)):
        np.testing.assert_allclose(internals.run_in_training(model, X), factor * X)


def test_a_compute_loss_without_a_training_argument():
    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return ops.sum(y)

    for kind in (Own, keras.Model):
        inputs = keras.Input((4,))
        model = kind(inputs, layers.Dense(1)(inputs))
        model.compile(loss="mse")
        loss = float(internals.loss_in_training(model, X, Y, Y, None))
        assert loss == pytest.approx(float(Y.sum()) if kind is Own else 0.0)


def test_the_losses_of_a_model_with_several_outputs():
    inputs = keras.Input((4,))
    outputs = {"o": layers.Dense(1)(inputs), "p": layers.Dense(1)(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"o": "mse", "p": "mae"}, loss_weights={"o": 1.0, "p": 10.0})
    y, predicted = {"o": Y, "p": Y}, {"o": Y + 1, "p": Y + 2}
    assert internals.compiled_losses(model) == []
    internals.build_from_batch(model, (X, y))
    values = [float(loss(Y, Y + 3)) for loss in internals.compiled_losses(model)]
    np.testing.assert_allclose(values, [9, 3], rtol=1e-5)
    assert [metric.name for metric in internals.loss_trackers(model)] == ["o_loss", "p_loss"]
    assert internals.loss_tracker(model).name == "loss"
    seen = []

    def change(place, loss, *args):
        seen.append((place, float(loss(*args))))
        return ops.convert_to_tensor(float(place + 1))

    assert float(internals.sum_of_losses(model, y, predicted, None, change)) == 1 + 10 * 2
    assert [place for place, _ in seen] == [0, 1]
    np.testing.assert_allclose([value for _, value in seen], [1, 2], rtol=1e-5)
    assert float(internals.loss_trackers(model)[0].result()) == 0  # not updated
    model.compute_loss(X, y, predicted)
    assert float(internals.loss_trackers(model)[0].result()) == pytest.approx(1)


def test_a_model_without_a_compiled_loss_has_none():
    model = network(optimizer="sgd")
    assert internals.compiled_losses(model) == internals.loss_trackers(model) == []


def test_masks_hang_on_tensors_and_reach_losses():
    masked = layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 0], [0, 0]]))
    mask = internals.mask_of(masked)
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), [[True, False], [False, False]])
    assert list(internals.tensor_attributes(masked)) == ["_keras_mask"]
    bare = ops.convert_to_tensor(np.zeros((2, 2, 2), "float32"))
    assert internals.mask_of(bare) is None and internals.tensor_attributes(bare) == {}
    moved = internals.with_attributes(bare, internals.tensor_attributes(masked))
    target = np.array([[[1, 1], [9, 9]], [[9, 9], [9, 9]]], "float32")
    assert float(keras.losses.MeanSquaredError()(target, moved)) == pytest.approx(1)


@pytest.mark.tensorflow_only
def test_the_values_before_a_softmax_hang_on_its_outputs():
    logits = ops.convert_to_tensor(np.array([[0.0, 200.0]], "float32"))
    for activation in (keras.activations.softmax, keras.activations.sigmoid):
        assert list(internals.tensor_attributes(activation(logits))) == ["_keras_logits"]


def test_weights_under_a_mask():
    mask, weight = np.array([[True, False]]), np.array([[2.0, 3.0]], "float32")
    found = internals.weights_under_mask(weight, mask, "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(found), [[2, 0]])
    assert internals.weights_under_mask(None, None, "float32") is None


def decayed(optimizer, variables):
    """Whether weight decay changes each of the variables."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [inner._use_weight_decay(variable) for variable in variables]


def variables():
    return [
        keras.Variable(np.ones(2, "float32"), name=name) for name in ("kernel", "bias", "gamma")
    ]


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_exclusions_from_weight_decay(is_built, wrapped):
    def optimizer():
        inner = keras.optimizers.AdamW(0.1, weight_decay=0.5)
        return inner, keras.optimizers.LossScaleOptimizer(inner) if wrapped else inner

    (inner, old), (_, new) = optimizer(), optimizer()
    one, other = variables(), variables()
    inner.exclude_from_weight_decay(var_list=[one[0], one[2]], var_names=["bias"])
    old.build(one)
    if is_built:
        new.build(other)
    rest = internals.copy_decay_exclusions(old, new, [(one[0], other[0])])
    assert [variable.name for variable in rest] == ["gamma"]
    assert decayed(new, other) == [False, False, True]
    assert decayed(old, one) == [False, False, False]


def test_optimizers_without_exclusions_and_none():
    old, new = (
        keras.optimizers.AdamW(0.1, weight_decay=0.5),
        keras.optimizers.AdamW(0.1, weight_decay=0.5),
    )
    one, other = variables(), variables()
    old.build(one)
    assert internals.copy_decay_exclusions(old, new, zip(one, other, strict=True)) == []
    assert decayed(new, other) == [True] * 3
    assert internals.copy_decay_exclusions(None, None, []) == []
