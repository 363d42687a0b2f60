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


def test_unregistered_losses_survive_compilation():
    def mine(expected, actual):
        return keras.ops.mean(keras.ops.abs(expected - actual))

    model = models.small_convolutional()
    model.compile("sgd", mine, metrics=[mine, keras.metrics.MeanSquaredError(name="error")])
    new = keras_ic.rewrite(model)
    result = new.evaluate(np.ones((2, 8, 8, 3)), np.zeros((2, 5)), verbose=0, return_dict=True)
    assert set(result) == {"loss", "mine", "error"}


def test_mixed_precision_and_a_compile_of_its_own():
    keras.config.set_dtype_policy("mixed_float16")
    model = models.small_convolutional()
    model.compile("sgd", "mse", jit_compile=False)
    new = keras_ic.rewrite(model)
    assert isinstance(new.optimizer, keras.optimizers.LossScaleOptimizer)
    assert (
        isinstance(new.optimizer.inner_optimizer, keras.optimizers.SGD)
        and new.dtype_policy.name == "mixed_float16"
    )

    class Own(keras.Model):
        def compile(self, *args, more=None, **kwargs):
            super().compile(*args, **kwargs)

    inputs = keras.Input((4,))
    own = Own(inputs, layers.Dense(2)(layers.Dense(4)(inputs)))
    own.compile("sgd", "mse", more=1)
    with pytest.warns(UserWarning, match=r"not compiled.*Received.*type Own"):
        assert not keras_ic.rewrite(own).compiled


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.02


@pytest.mark.parametrize("rate", [Halving(), lambda: 0.02], ids=["schedule", "function"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_learning_rates_that_have_no_configuration(rate, policy):
    keras.config.set_dtype_policy(policy)
    model = models.small_convolutional()
    model.compile(keras.optimizers.Adam(rate, beta_1=0.7), "mse", jit_compile=False)
    for new in (keras_ic.rewrite(model), keras_ic.fold(models.randomize(model))):
        pairs = [
            (made.optimizer, getattr(made.optimizer, "inner_optimizer", made.optimizer))
            for made in (model, new)
        ]
        assert type(pairs[0][0]) is type(pairs[1][0]) and pairs[0][1] is not pairs[1][1]
        assert pairs[1][1].beta_1 == 0.7 and float(pairs[1][1].learning_rate) == pytest.approx(0.02)
        assert pairs[1][1]._learning_rate is rate and pairs[0][1]._learning_rate is rate


def test_losses_without_a_configuration_are_passed_on_and_such_metrics_leave_the_model_uncompiled():
    class Weighted(keras.losses.Loss):
        def __init__(self, weight):
            super().__init__()
            self.weight = weight

        def call(self, expected, actual):
            return self.weight * keras.ops.mean(keras.ops.abs(expected - actual), -1)

    class Above(keras.metrics.Mean):
        def __init__(self, threshold):
            super().__init__(name="above")
            self.threshold = threshold

    model = models.small_convolutional()
    x, y = np.ones((2, 8, 8, 3)), np.zeros((2, 5))
    model.compile("sgd", Weighted(3.0))
    new = keras_ic.rewrite(model, weights="preserve")
    assert new.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-3)
    model.compile("sgd", "mse", metrics=[Above(0.5)])
    models.randomize(model)
    for function in (keras_ic.rewrite, keras_ic.fold):
        with pytest.warns(
            UserWarning,
            match=(
                r"not compiled, as above \(Above\) cannot be rebuilt.*compile it. Received:"
                r" model 'small'"
            ),
        ) as warned:
            assert not function(model).compiled
        assert [
            warning.filename for warning in warned if "not compiled" in str(warning.message)
        ] == [__file__]


@pytest.mark.parametrize(
    "kind, expected", [("Embedding", ["one_ic", "two_ic"]), ("Masking", ["two_ic"])]
)
def test_masks_in_a_sequential(kind, expected):
    first = layers.Embedding(9, 4, mask_zero=True) if kind == "Embedding" else layers.Masking()
    inputs = keras.Input((5,), dtype="int32") if kind == "Embedding" else keras.Input((5, 4))
    stack = [
        first,
        layers.Dense(4, name="one"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dense(4, name="two"),
        layers.LSTM(3),
    ]
    model = models.randomize(keras.Sequential([inputs, *stack]))
    x = np.random.default_rng(0).integers(0, 3, (6, *inputs.shape[1:])).astype(inputs.dtype)
    x[:, 3:] = 0
    new = keras_ic.rewrite(model, weights="preserve")
    assert [ic.name for ic in models.ics(new)] == expected
    for made in (new, keras_ic.fold(model)):
        assert type(made) is keras.Sequential and all(
            isinstance(layer, layers.Layer) for layer in made.layers
        )
        np.testing.assert_allclose(
            models.outputs(made, x)[0], models.outputs(model, x)[0], atol=1e-5
        )


def test_models_that_share_a_trunk_share_its_ic_layer():
    inputs = keras.Input((8,))
    x = layers.Dense(5, activation="relu", name="second")(
        layers.Dense(6, activation="relu", name="first")(inputs)
    )
    heads = (
        keras.Model(inputs, layers.Dense(4, name="head")(x), name="full"),
        keras.Model(inputs, x, name="features"),
    )
    given = keras.Input((8,))
    model = models.randomize(keras.Model(given, [head(given) for head in heads]))
    plan, new = (
        keras_ic.plan(model, weights="preserve"),
        keras_ic.rewrite(model, weights="preserve"),
    )
    assert sorted(ic.name for ic in models.ics(new)) == ["head_ic", "second_ic"]
    assert new.count_params() == plan.parameters[1]
    models.assert_same_function(model, new)


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


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
def test_a_nested_model_that_is_handed_more_than_it_asks_for():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    x = layers.BatchNormalization()(layers.Dense(3)(layers.Concatenate()([a, b])))
    first, second = keras.Input((4,)), keras.Input((4,))
    keyed = keras.Model({"a": a, "b": b}, layers.Dense(3, name="end")(x), name="keyed")
    listed = keras.Model([a, b], layers.Dense(3, name="other_end")(x), name="listed")
    model = keras.Model(
        [first, second], [inner({"c": first, "a": first, "b": second}) for inner in (keyed, listed)]
    )
    models.randomize(model)
    new = keras_ic.rewrite(model, weights="preserve")
    assert {ic.name for ic in models.ics(new)} == {"end_ic"}  # Both read the same tensor.
    x = models.sample(model)
    for made in (new, keras_ic.fold(model)):
        for expected, actual in zip(models.outputs(model, x), models.outputs(made, x), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_outputs_keep_the_names_that_they_are_known_by():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="dense")(inputs)
    ends = [
        layers.Dense(2, name="head")(keras.ops.relu(x)),
        layers.BatchNormalization(name="scores")(x),
    ]
    model = models.randomize(keras.Model(inputs, ends, name="two"))
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


def video(trainable=True):
    """A model of frames at each step of a sequence: the commonest form of a video network."""
    frame = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Conv2D(4, 3, name="conv2"),
            layers.GlobalAveragePooling2D(name="pool"),
        ],
        name="frame",
    )
    frame.get_layer("conv2").trainable = trainable
    inputs = keras.Input((5, 8, 8, 3))
    x = layers.TimeDistributed(frame, name="timed")(inputs)
    return models.randomize(keras.Model(inputs, layers.Dense(2, name="end")(layers.GRU(4)(x))))


def test_a_model_inside_time_distributed():
    model = video(trainable=False)
    unchanged = models.Unchanged(model)
    plan = keras_ic.plan(model, weights="preserve")
    new = keras_ic.rewrite(model, weights="preserve")
    unchanged.check()
    models.assert_same_function(model, new)
    assert new.count_params() == plan.parameters[1]
    frame = new.get_layer("timed").layer
    assert [layer.name for layer in frame.layers] == ["conv1", "relu", "conv2_ic", "conv2", "pool"]
    assert not frame.get_layer("conv2").trainable and frame.get_layer("conv1").trainable
    changed = {change.layer: change.result for change in plan.changes}
    assert changed["timed/bn"] == "folded into conv1"
    assert plan.flops[0] > 5 * 2 * 6 * 6 * 4 * 27  # Five frames.

    new = keras_ic.rewrite(video(), weights="preserve")
    frame = new.get_layer("timed").layer
    new.compile("sgd", "mse", jit_compile=False)
    before = frame.get_layer("conv2_ic").moving_mean.numpy()
    x = models.sample(model, batch=4)
    assert np.isfinite(new.train_on_batch(x, np.zeros((4, 2))))
    assert np.abs(frame.get_layer("conv2_ic").moving_mean.numpy() - before).max() > 0

    folded = keras_ic.fold(new)
    models.assert_same_function(new, folded, 1e-5)
    assert not models.ics(folded)


def test_shared_layers_and_shared_nested_models_stay_shared():
    inner = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(6, use_bias=False, name="d1"),
            layers.BatchNormalization(),
            layers.ReLU(),
        ],
        name="inner",
    )
    shared = layers.Dense(6, name="shared")
    inputs = keras.Input((6,))
    x = shared(inputs)
    y = inner(inner(shared(keras.ops.relu(x))) + x)
    model = models.randomize(keras.Model(inputs, [y, x]))
    unchanged = models.Unchanged(model)
    new = keras_ic.rewrite(model, weights="preserve")
    unchanged.check()
    models.assert_same_function(model, new)
    assert len(
        [layer for layer in new.layers if layer.name == "inner"]
    ) == 1 and not models.batch_normalizations(new)
    assert sum(layer.name == "d1" for layer in new.get_layer("inner").layers) == 1


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


def test_inputs_that_are_intermediate_tensors():
    inputs = keras.Input((8, 8, 3))
    middle = layers.Conv2D(4, 3)(inputs)
    end = layers.Conv2D(2, 3, name="end")(
        layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, name="first")(middle)))
    )
    model = models.randomize(keras.Model(middle, end))
    unchanged = models.Unchanged(model)
    new = keras_ic.rewrite(model, weights="preserve")
    unchanged.check()
    models.assert_same_function(model, new)
    assert [ic.name for ic in models.ics(new)] == ["end_ic"]


def test_an_input_that_no_output_needs():
    inputs, other = keras.Input((8, 8, 3)), keras.Input((3,))
    layers.Dense(2)(other)  # Keras 3.12 makes no model of an input without any call.
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    model = models.randomize(keras.Model([inputs, other], layers.Conv2D(2, 3)(x)))
    new = keras_ic.rewrite(model, weights="preserve")
    models.assert_same_function(model, new)
    assert len(new.inputs) == 2


def test_a_layer_with_calls_in_other_models():
    inputs = keras.Input((6,))
    first, normalization, second = layers.Dense(6), layers.BatchNormalization(), layers.Dense(2)
    model = keras.Model(inputs, second(normalization(first(inputs))))
    other = keras.Input((6,))
    keras.Model(other, first(normalization(first(other))))
    models.randomize(model)
    new = keras_ic.rewrite(model, weights="preserve")
    models.assert_same_function(model, new)
    assert not models.batch_normalizations(new)
    # Their calls elsewhere keep neither layer from taking it up.
    assert any(
        change.result == f"folded into {first.name}"
        for change in keras_ic.plan(model, weights="preserve").changes
    )


def test_copy_goes_by_layer():
    model = models.randomize(models.small_convolutional())
    new = keras_ic.rewrite(model, weights="copy")
    for name in ("conv1", "conv2", "dense"):
        np.testing.assert_array_equal(
            new.get_layer(name).kernel.numpy(), model.get_layer(name).kernel.numpy()
        )
    assert not new.get_layer("conv1").bias.numpy().any()
    np.testing.assert_array_equal(
        new.get_layer("dense").bias.numpy(), model.get_layer("dense").bias.numpy()
    )
    assert type(new.get_layer("conv1").kernel_initializer) is type(
        model.get_layer("conv1").kernel_initializer
    )
    fresh = keras_ic.rewrite(model)
    assert (
        np.abs(
            fresh.get_layer("dense").kernel.numpy() - model.get_layer("dense").kernel.numpy()
        ).max()
        > 0
    )


def test_state_of_preprocessing_is_always_copied():
    preprocessing = layers.Normalization()
    preprocessing.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype("float32"))
    model = keras.Sequential([keras.Input((4,)), preprocessing, layers.Dense(3), layers.Dense(2)])
    new = keras_ic.rewrite(model)
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(made.layers[0](np.ones((1, 4)))) for made in (model, new))
    )


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("mode", ["tf_idf", "multi_hot", "count"])
def test_state_of_text_preprocessing_is_copied(mode):
    texts = np.array(["red blue", "blue blue green", "red"])
    preprocessing = layers.TextVectorization(max_tokens=6, output_mode=mode)
    preprocessing.adapt(texts)
    inputs = keras.Input((), dtype="string")
    x = layers.Dense(3, "relu")(preprocessing(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.BatchNormalization()(x)))
    for new in (
        keras_ic.rewrite(model, weights="preserve"),
        keras_ic.fold(models.randomize(model)),
    ):
        np.testing.assert_array_equal(
            *(
                keras.ops.convert_to_numpy(made.get_layer(preprocessing.name)(texts))
                for made in (model, new)
            )
        )


def test_normalization_of_given_and_of_adapted_mean():
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 2)).astype("float32"))
    for given in (adapted, layers.Normalization(mean=[1.0, 2.0], variance=[2.0, 3.0])):
        model = keras.Sequential([keras.Input((2,)), given, layers.Dense(3), layers.Dense(2)])
        models.assert_same_function(model, keras_ic.rewrite(model, weights="preserve"))


def test_flags_of_single_weights_survive():
    model = models.randomize(models.small_convolutional())
    model.get_layer("conv2").kernel.trainable = False
    for made in (keras_ic.rewrite(model, weights="preserve"), keras_ic.fold(model)):
        assert not made.get_layer("conv2").kernel.trainable
        assert made.get_layer("conv2").bias.trainable and made.get_layer("conv1").kernel.trainable


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")
def test_weights_are_paired_by_path():
    model = models.randomize(
        keras.Sequential(
            [keras.Input((8,)), layers.Dense(8, "relu", name="one"), layers.Dense(8, name="two")]
        )
    )
    model.quantize("float8")
    for weight in model.weights:
        if weight.name.endswith("_scale"):
            weight.assign(2.0)
    new = keras_ic.rewrite(model, weights="copy")
    by_path = {weight.path: weight.numpy() for weight in new.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(by_path[weight.path], weight.numpy())


def test_rewriting_twice_is_refused():
    with pytest.raises(ValueError, match=r"IC form already.*Received: model 'small'"):
        keras_ic.rewrite(keras_ic.rewrite(models.small_convolutional()))
    with pytest.raises(ValueError, match="nothing that could be changed"):
        keras_ic.rewrite(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))


def test_a_layer_that_cannot_be_built_anew_is_named():
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


@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask attached to it")
def test_a_mask_with_fewer_axes_than_the_frames_of_a_video():
    inputs = keras.Input((4, 75))
    frames = keras.layers.TimeDistributed(keras.layers.Reshape((5, 5, 3)))(
        keras.layers.Masking()(inputs)
    )
    x = keras.layers.Conv3D(4, (1, 3, 3), activation="relu", name="first")(frames)
    model = keras.Model(inputs, keras.layers.Conv3D(2, (1, 3, 3), name="second")(x))
    new = keras_ic.rewrite(model, 0.1, skip_first=False)
    ic = new.get_layer("first_ic")
    videos = np.random.default_rng(0).normal(3.0, 2.0, (6, 4, 75)).astype("float32")
    videos[:, 2:] = 0  # two frames of four are there
    new(videos, training=True)
    # The frames that are not there do not enter the statistics.
    expected = videos[:, :2].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ic.moving_mean), 0.01 * expected, rtol=1e-3
    )
