import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from tests.surgery import models


def data(count=50, size=5, seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, (count, size)).astype("float32")


def network():
    stack = [
        keras.Input((5,)),
        layers.Dense(6, activation="relu"),
        layers.BatchNormalization(),
        keras_ic.IC(0.3),
        layers.Dropout(0.4),
        layers.Dense(2),
    ]
    return models.randomize(keras.Sequential(stack, name="net"))


def moving(model):
    return {weight.path: weight.numpy() for weight in model.weights if "moving" in weight.name}


def batches(x, size=16):
    for start in range(0, len(x), size):
        yield x[start : start + size], np.zeros(len(x[start : start + size]))


class Batches(keras.utils.PyDataset):
    def __init__(self, x, **kwargs):
        super().__init__(**kwargs)
        self.all = list(batches(x))

    def __len__(self):
        return len(self.all)

    def __getitem__(self, index):
        return self.all[index]


def test_calibrate_keeps_the_function_and_measures_every_input():
    model = models.randomize(models.small_convolutional())
    new = keras_ic.rewrite(model, 0.4, weights="preserve")
    x = np.random.default_rng(0).normal(1.0, 2.0, (70, 8, 8, 3)).astype("float32")
    keras_ic.calibrate(new, x, verbose=0)
    models.assert_same_function(model, new)
    for ic in models.ics(new):
        values = keras.ops.convert_to_numpy(
            keras.Model(new.inputs, ic.input).predict(x, verbose=0)
        ).astype("float64")
        axes = tuple(range(values.ndim - 1))
        np.testing.assert_allclose(ic.moving_mean.numpy(), values.mean(axes), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ic.moving_variance.numpy(), values.var(axes), rtol=1e-4)


def test_calibrate_keeps_what_a_trained_ic_computes():
    model = network()
    (ic,) = models.ics(model)
    for weight, value in zip(ic.weights, (2.0, -1.0, 0.5, 3.0), strict=True):
        weight.assign(np.full(6, value))
    expected = models.outputs(model, data())[0]
    keras_ic.calibrate(model, data(seed=1), verbose=0)
    assert np.abs(ic.moving_mean.numpy() - 0.5).min() > 0
    np.testing.assert_allclose(models.outputs(model, data())[0], expected, rtol=1e-4, atol=1e-5)


def test_training_and_inference_agree_after_calibrate():
    model = models.randomize(models.small_convolutional())
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    gaps = []
    for calibrated in (False, True):
        new = keras_ic.rewrite(model, 0.0, weights="preserve")
        if calibrated:
            keras_ic.calibrate(new, x, verbose=0)
        trained = keras.ops.convert_to_numpy(keras.ops.stop_gradient(new(x, training=True)))
        gaps.append(np.abs(trained - models.outputs(model, x)[0]).max())
    assert gaps[1] < 1e-3 < gaps[0]


def test_recalibrate_is_exact_and_free_of_dropout():
    model = network()
    x = data()
    keras_ic.recalibrate(model, x, batch_size=50, verbose=0)
    kernel, bias = (weight.numpy().astype("float64") for weight in model.layers[0].weights)
    normalization, ic = model.layers[1], model.layers[2]
    values = np.maximum(x @ kernel + bias, 0)
    for layer in (normalization, ic):
        np.testing.assert_allclose(layer.moving_mean.numpy(), values.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            layer.moving_variance.numpy(), values.var(0), rtol=1e-4, atol=1e-6
        )
        values = (values - values.mean(0)) / np.sqrt(
            values.var(0) + layer.epsilon
        ) * layer.gamma.numpy() + layer.beta.numpy()


def test_recalibrate_pools_batches_of_any_size():
    values = np.concatenate([data(48), data(2, seed=1) + 100.0])
    model = keras.Sequential([keras.Input((5,)), keras_ic.IC(0.3), layers.Dense(2)])
    keras_ic.recalibrate(model, values, batch_size=16, verbose=0)
    np.testing.assert_allclose(
        model.layers[0].moving_mean.numpy(), values.astype("float64").mean(0), rtol=1e-6
    )
    np.testing.assert_allclose(
        model.layers[0].moving_variance.numpy(), values.astype("float64").var(0), rtol=1e-5
    )


def test_shared_layers_pool_over_their_calls_and_masked_positions_do_not_count():
    shared = keras_ic.IC(0.1)
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model(
        [a, b], layers.Add()([layers.Dense(2)(shared(a)), layers.Dense(2)(shared(b))])
    )
    x, y = data(20, 3), data(20, 3, seed=1) + 5
    keras_ic.recalibrate(model, [x, y], verbose=0)
    np.testing.assert_allclose(
        shared.moving_mean.numpy(), np.concatenate([x, y]).mean(0), rtol=1e-5
    )

    masked = keras.Sequential(
        [keras.Input((4, 3)), layers.Masking(0.0), keras_ic.IC(0.1), layers.Dense(2)]
    )
    sequence = data(10, 12).reshape(10, 4, 3)
    sequence[:, 2:] = 0
    keras_ic.recalibrate(masked, sequence, verbose=0)
    np.testing.assert_allclose(
        masked.layers[1].moving_mean.numpy(), sequence[:, :2].mean((0, 1)), rtol=1e-5
    )


def test_every_kind_of_data_gives_the_same():
    torch = pytest.importorskip("torch")
    x, model, found = data(), network(), []
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(x)), batch_size=16
    )
    for kind in (
        lambda: batches(x),
        lambda: Batches(x),
        lambda: loader,
        lambda: ((inputs,) for inputs, _ in batches(x)),
    ):
        keras_ic.recalibrate(model, kind(), verbose=0)
        found.append(moving(model))
    keras_ic.recalibrate(model, x, batch_size=16, verbose=0)
    for other in found:
        for path, value in moving(model).items():
            np.testing.assert_allclose(other[path], value, rtol=1e-6)


@pytest.mark.tensorflow_only
def test_tf_data_and_data_without_end():
    import tensorflow as tf

    x, model = data(), network()
    dataset = tf.data.Dataset.from_tensor_slices((x, x)).batch(16)
    keras_ic.recalibrate(model, dataset, verbose=0)
    expected = moving(model)
    keras_ic.recalibrate(model, x, batch_size=16, verbose=0)
    for path, value in moving(model).items():
        np.testing.assert_allclose(expected[path], value, rtol=1e-6)
    with pytest.raises(ValueError, match=r"`steps` must say.*Received: steps=None"):
        keras_ic.recalibrate(model, dataset.repeat())
    keras_ic.recalibrate(model, dataset.repeat(), steps=4, verbose=0)


def test_steps_and_progress_bar(capsys):
    model = network()
    keras_ic.recalibrate(model, data(32), batch_size=16, verbose=0)
    expected = moving(model)
    assert capsys.readouterr().out == ""
    keras_ic.recalibrate(model, data(50), steps=2, batch_size=16)
    assert "2/2" in capsys.readouterr().out
    keras_ic.recalibrate(
        model, np.concatenate([data(32), data(18, seed=9)]), steps=2, batch_size=16, verbose=0
    )
    for path, value in moving(model).items():
        np.testing.assert_array_equal(expected[path], value)


@pytest.mark.parametrize("function", [keras_ic.calibrate, keras_ic.recalibrate])
def test_an_interrupted_pass_changes_nothing(function):
    def interrupted():
        yield from batches(data())
        raise KeyboardInterrupt

    model = network()
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(KeyboardInterrupt):
        function(model, interrupted(), verbose=0)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))
    assert all("call" not in vars(layer) for layer in model.layers)
    function(model, data(), verbose=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("function", [keras_ic.calibrate, keras_ic.recalibrate])
def test_statistics_that_are_not_finite_are_refused(function, bad):
    stack = [
        keras_ic.IC(0.1, name="first"),
        layers.Dense(3, activation="relu"),
        keras_ic.IC(0.1, name="second"),
        layers.Dense(2),
    ]
    model = keras.Sequential(
        [keras.Input((5,)), layers.BatchNormalization(name="bn"), *stack], name="net"
    )
    x = data()
    x[21, 3] = bad
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(
        ValueError,
        match=r"stay as they were.*nan or infinite.*Received: model 'net' with (bn|first)",
    ):
        function(model, x, batch_size=16, verbose=0)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))
    # Moving statistics that are not finite are repaired by data that are.
    model.get_layer("first").moving_variance.assign(np.full(5, np.inf))
    keras_ic.recalibrate(model, data(), verbose=0)
    assert all(np.all(np.isfinite(weight.numpy())) for weight in model.weights)


def test_subclassed_models_have_statistics_too():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.ic = keras_ic.IC(0.2)
            self.dense = layers.Dense(2)

        def call(self, inputs, training=None):
            return self.dense(self.ic(inputs, training=training))

    model = Subclassed()
    model(data())
    keras_ic.recalibrate(model, data(), verbose=0)
    np.testing.assert_allclose(model.ic.moving_mean.numpy(), data().mean(0), rtol=1e-5)


def test_bad_input():
    class Other(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return inputs

    model = network()
    none = keras.Sequential([keras.Input((5,)), layers.Dense(2)], name="none")
    bare = keras.Sequential([keras.Input((5,)), keras_ic.IC(0.1, scale=False, name="bare")])
    for call, message in (
        (lambda: keras_ic.calibrate(none, data()), "no IC layers.*Received: model 'none'"),
        (
            lambda: keras_ic.recalibrate(none, data()),
            "no IC or BatchNormalization layers.*Received",
        ),
        (lambda: keras_ic.calibrate(bare, data()), "bare has no gamma.*Received: scale=False"),
        (
            lambda: keras_ic.recalibrate(
                keras.Sequential([keras.Input((5,)), Other(name="other")]), data()
            ),
            "other computes.*Received.*Other",
        ),
        (
            lambda: keras_ic.calibrate(model, data(size=4), verbose=0),
            r"must fit the inputs of model 'net'.*\(None, 5\). Received.*\(32, 4\)",
        ),
        (
            lambda: keras_ic.calibrate(model, data(), steps=9, verbose=0),
            "steps` says. Received: steps=9, data of 2 batches",
        ),
        (
            lambda: keras_ic.calibrate(model, data(0), verbose=0),
            "at least one batch.*data of 0 batches",
        ),
        (
            lambda: keras_ic.calibrate(model, "data"),
            "something that `fit` takes.*Received: data of type str",
        ),
        (
            lambda: keras_ic.calibrate(model, None),
            "something that `fit` takes.*Received: data=None",
        ),
        (lambda: keras_ic.calibrate(model, []), r"something that `fit` takes.*Received: data=\[\]"),
        (
            lambda: keras_ic.recalibrate(model, np.float32(3)),
            "arrays with a batch axis.*Received: data=.*3",
        ),
        (
            lambda: keras_ic.recalibrate(model, {"a": keras.ops.ones(())}),
            "something that `fit` takes.*Received: data={'a'",
        ),
        (lambda: keras_ic.calibrate(model, data(), steps=0), "Received: steps=0"),
        (lambda: keras_ic.calibrate(model, data(), batch_size="big"), "Received: batch_size='big'"),
        (lambda: keras_ic.calibrate(model, data(), verbose="loud"), "Received: verbose='loud'"),
        (
            lambda: keras_ic.calibrate("model", data()),
            "must be a keras.Model. Received: model='model'",
        ),
    ):
        before = [weight.numpy() for weight in model.weights]
        with pytest.raises(ValueError, match=message):
            call()
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))


@pytest.mark.tensorflow_only
def test_under_a_strategy(strategy):
    with strategy.scope():
        model = network()
    keras_ic.recalibrate(model, data(), batch_size=50, verbose=0)
    single = network()
    keras_ic.recalibrate(single, data(), batch_size=50, verbose=0)
    single.set_weights(model.get_weights())
    expected = moving(model)
    keras_ic.recalibrate(single, data(), batch_size=50, verbose=0)
    for one, other in zip(expected.values(), moving(single).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
