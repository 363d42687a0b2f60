import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from tests.surgery import models


def test_sequential_stays_sequential_with_ics_above_padding_and_flatten():
    new = keras_ic.rewrite(models.small_convolutional())
    assert type(new) is keras.Sequential
    assert [layer.name for layer in new.layers] == [
        "conv1",
        "relu1",
        "conv2_ic",
        "pad",
        "conv2",
        "relu2",
        "dense_ic",
        "flatten",
        "dense",
    ]
    assert new.get_layer("dense_ic").gamma.shape == (6,)
    assert all(len(layer._inbound_nodes) == 1 for layer in new.layers)


def test_padding_that_others_read_too_stays_for_them():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1)(inputs)
    padded = layers.ZeroPadding2D(name="pad")(x)
    model = keras.Model(
        inputs,
        layers.Concatenate()([layers.Conv2D(2, 3, padding="same", name="conv")(padded), padded]),
    )
    new = keras_ic.rewrite(models.randomize(model), weights="preserve")
    models.assert_same_function(model, new)
    assert len(new.get_layer("pad")._inbound_nodes) == 2 and new.get_layer(
        "conv_ic"
    ).input.shape == (None, 8, 8, 4)


def test_channels_first():
    # Dense layers in between: TensorFlow has no convolution for these on CPUs.
    x = inputs = keras.Input((3, 8, 8))
    for layer in (
        layers.Conv2D(4, 3, data_format="channels_first", name="one"),
        layers.BatchNormalization(axis=1, name="bn"),
        layers.Conv2D(5, 3, data_format="channels_first", name="two"),
        layers.ReLU(),
        layers.Flatten(data_format="channels_first"),
        layers.Dense(2, name="end"),
    ):
        x = layer(x)
    model = keras.Model(inputs, x)
    plan = keras_ic.plan(model, weights="preserve")
    assert {change.layer: change.result for change in plan.changes}["bn"] == "folded into one"
    new = keras_ic.rewrite(model, weights="preserve")
    assert [(ic.axis, ic.gamma.shape) for ic in models.ics(new)] == [(1, (4,)), (1, (5,))]


def test_what_survives():
    @keras.saving.register_keras_serializable(package="test")
    class Named(keras.Model):
        pass

    inputs = keras.Input((4,), name="given", dtype="float32")
    x = layers.Dense(
        6,
        kernel_regularizer="l2",
        kernel_constraint="max_norm",
        activation="relu",
        dtype="mixed_float16",
        name="half",
    )(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    frozen = layers.Dense(3, name="frozen", dtype="float32")
    model = Named({"given": inputs}, {"out": frozen(x), "inner": x}, name="kept")
    frozen.trainable = False
    model.compile(
        keras.optimizers.Adam(0.02),
        {"out": "mse", "inner": "mse"},
        metrics={"out": ["mae"]},
        run_eagerly=True,
    )
    model.optimizer.learning_rate = 0.005
    new = keras_ic.rewrite(model)
    assert type(new) is Named and new.name == "kept" and new.run_eagerly
    half = new.get_layer("half")
    assert (
        half.kernel_regularizer.get_config()
        == model.get_layer("half").kernel_regularizer.get_config()
    )
    assert (
        isinstance(half.kernel_constraint, keras.constraints.MaxNorm)
        and half.dtype_policy.name == "mixed_float16"
    )
    assert (
        not new.get_layer("frozen").trainable
        and not new.get_layer("frozen_ic").trainable
        and half.trainable
    )
    assert new.optimizer is not model.optimizer and float(
        new.optimizer.learning_rate
    ) == pytest.approx(0.005)
    x, y = (
        np.ones((2, 4), "float32"),
        {
            "out": np.zeros((2, 3), "float32"),
            "inner": np.zeros((2, 6), "float32"),
        },
    )
    before = [weight.numpy().tobytes() for weight in model.weights]
    assert np.isfinite(new.train_on_batch({"given": x}, y, return_dict=True)["loss"])
    assert [weight.numpy().tobytes() for weight in model.weights] == before and int(
        model.optimizer.iterations
    ) == 0


class Objective(keras.Model):
    """A model with an objective of its own."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 1000.0 + keras.ops.mean(keras.ops.square(y - y_pred))


def test_a_class_with_an_objective_of_its_own_is_kept(recwarn):
    inputs = keras.Input((4,))
    x = layers.Dropout(0.1)(layers.BatchNormalization()(layers.Dense(3)(inputs)))
    model = models.randomize(Objective(inputs, layers.Dense(1)(x)))
    model.compile("sgd", "mse")
    x, y = np.ones((4, 4)), np.zeros((4, 1))
    for new in (keras_ic.rewrite(model, weights="preserve"), keras_ic.fold(model)):
        assert type(new) is Objective
        assert new.evaluate(x, y, verbose=0) == pytest.approx(
            model.evaluate(x, y, verbose=0), rel=1e-5
        )
    assert not [each for each in recwarn.list if "are lost" in str(each.message)]


def test_a_class_that_cannot_be_kept_is_told():
    class Own(Objective):
        def __init__(self, units):
            inputs = keras.Input((4,))
            x = layers.Dropout(0.1)(layers.BatchNormalization()(layers.Dense(units)(inputs)))
            super().__init__(inputs, layers.Dense(1)(x), name="own")

    class Stack(keras.Sequential):
        def __init__(self, units):
            super().__init__([keras.Input((4,)), layers.Dense(units), layers.BatchNormalization()])
            self.add(layers.Dense(1))
            self.add(layers.Dropout(0.1))

        def train_step(self, data):
            return {"loss": keras.ops.zeros(())}

    class Harmless(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((4,))
            super().__init__(inputs, layers.Dense(1)(layers.Dropout(0.1)(inputs)))

    for kind, lost in ((Own, "compute_loss"), (Stack, "train_step")):
        model = models.randomize(kind(3))
        for plan, make in ((keras_ic.plan, keras_ic.rewrite), (keras_ic.plan_fold, keras_ic.fold)):
            assert any(f"without the class's {lost}" in row.reason for row in plan(model).skipped)
            with pytest.warns(
                UserWarning,
                match=rf"its {lost} are lost.*models that it is made of.*{kind.__name__}",
            ) as warned:
                make(model)
            told = [each for each in warned if "are lost" in str(each.message)]
            assert {each.filename for each in told} == {__file__}
    assert not keras_ic.plan_fold(Harmless(3)).skipped


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")
@pytest.mark.parametrize("weights", ["copy", "preserve"])
def test_a_quantized_model(weights):
    stack = [
        layers.Dense(6, name="one"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dense(4, name="two"),
    ]
    model = models.randomize(keras.Sequential([keras.Input((8,)), *stack]))
    model.quantize("int8")
    new = keras_ic.rewrite(model, weights=weights)
    assert (
        new.get_layer("two").quantization_mode == "int8"
        and new.get_layer("two_ic").dtype_policy.name == "float32"
    )
    x = models.sample(model)
    assert np.all(np.isfinite(models.outputs(new, x)[0]))
    if weights == "preserve":
        np.testing.assert_allclose(
            models.outputs(new, x)[0], models.outputs(model, x)[0], atol=1e-4
        )


def test_outputs_keep_the_names_that_they_are_known_by():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="dense")(inputs)
    ends = [
        layers.Dense(2, name="head")(keras.ops.relu(x)),
        layers.BatchNormalization(name="scores")(x),
    ]
    model = models.randomize(keras.Model(inputs, ends, name="two"))
    model.get_layer("scores").trainable = False
    losses = {"head": "mse", "scores": "mae"}
    model.compile("sgd", losses)
    x, y = np.ones((2, 4)), [np.zeros((2, 2)), np.zeros((2, 3))]
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    for weights in ("fresh", "preserve"):
        plan, new = keras_ic.plan(model, weights=weights), keras_ic.rewrite(model, weights=weights)
        assert new.output_names == model.output_names == ["head", "scores"]
        assert (
            new.count_params() == plan.parameters[1]
            and type(new.get_layer("scores")) is layers.Identity
            and not new.get_layer("scores").trainable
        )
        (row,) = [change for change in plan.changes if change.kind == "normalization"]
        assert row.result.endswith("; an Identity keeps its name for the output")
        assert keras_ic.plan(new).changes == []
    folded = keras_ic.fold(model)
    for made in (new, folded):
        assert made.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-4)
    assert not keras_ic.plan_fold(folded).changes  # The Identity that holds the name stays.
    one = keras.Model(inputs, ends[1])
    assert not any(isinstance(layer, layers.Identity) for layer in keras_ic.rewrite(one).layers)
    one.compile("sgd", {"scores": "mse"})
    assert np.isfinite(keras_ic.rewrite(one).evaluate(x, y[1], verbose=0))
    keyed = keras.Model(inputs, {"scores": ends[1], "head": ends[0]})
    assert not any(isinstance(layer, layers.Identity) for layer in keras_ic.rewrite(keyed).layers)


def test_a_layer_that_stays_elsewhere_keeps_its_name_there():
    inputs = keras.Input((4,))
    shared = layers.BatchNormalization(name="shared")
    model = keras.Model(
        inputs, [shared(layers.Dense(4)(inputs)), layers.Dense(2)(shared(inputs, training=True))]
    )
    new = keras_ic.rewrite(models.randomize(model), weights="copy", skip_first=False)
    assert [type(layer) for layer in new.layers if layer.name == "shared"] == [
        layers.BatchNormalization
    ]


def test_op_nodes_keyword_arguments_lambdas_and_optional_inputs():
    scale = 3.0
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b", optional=True)

    @keras.saving.register_keras_serializable(package="test")
    class Choose(layers.Layer):
        def call(self, a, b=None, times=1.0):
            return a * times if b is None else a + b * times

    x = layers.Dense(4)(a)
    x = Choose()(layers.BatchNormalization()(x), b=b, times=2.0)
    x = layers.Lambda(lambda value: value * scale)(keras.ops.concatenate([x, x[:, :2]], axis=-1))
    model = models.randomize(keras.Model({"a": a, "b": b}, layers.Dense(3)(x)))
    new = keras_ic.rewrite(model, weights="preserve")
    models.assert_same_function(model, new)
    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
        return  # a model of that Keras cannot be called with None, be it rewritten or not
    only = {"a": np.ones((2, 4), "float32"), "b": None}
    np.testing.assert_allclose(
        models.outputs(model, only)[0], models.outputs(new, only)[0], rtol=1e-4, atol=1e-5
    )


def test_an_input_that_no_output_needs():
    inputs, other = keras.Input((8, 8, 3)), keras.Input((3,))
    layers.Dense(2)(other)  # Keras 3.12 makes no model of an input without any call.
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    model = models.randomize(keras.Model([inputs, other], layers.Conv2D(2, 3)(x)))
    new = keras_ic.rewrite(model, weights="preserve")
    models.assert_same_function(model, new)
    assert len(new.inputs) == 2


def test_rewriting_twice_is_refused():
    with pytest.raises(ValueError, match=r"IC form already.*Received: model 'small'"):
        keras_ic.rewrite(keras_ic.rewrite(models.small_convolutional()))
    with pytest.raises(ValueError, match="nothing that could be changed"):
        keras_ic.rewrite(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))


def test_a_layer_that_cannot_be_rebuilt_is_named():
    class Closed(layers.Layer):
        def __init__(self, function):
            super().__init__(name="closed")
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2), Closed(keras.ops.relu), layers.Dense(2)]
    )
    with pytest.raises(
        ValueError,
        match=r"'closed' cannot be rebuilt.*get_config.*Received: layer of type Closed",
    ):
        keras_ic.rewrite(model)


@pytest.mark.tensorflow_only
def test_a_training_step_of_each_mode():
    model = models.randomize(models.small_convolutional())
    model.compile("sgd", "mse", jit_compile=False)
    for weights in ("fresh", "copy", "preserve"):
        new = keras_ic.rewrite(model, weights=weights)
        history = new.fit(np.ones((8, 8, 8, 3)), np.zeros((8, 5)), batch_size=4, verbose=0)
        assert np.isfinite(history.history["loss"][0])
