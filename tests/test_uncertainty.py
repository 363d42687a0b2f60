import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.utils.keras_internals import sublayers


def network(rate=0.2):
    inputs = {"image": keras.Input((6, 6, 2), name="image"), "more": keras.Input((3,), name="more")}
    x = keras_ic.IC(rate, name="ic")(layers.Conv2D(4, 3, activation="relu")(inputs["image"]))
    x = layers.BatchNormalization()(layers.SpatialDropout2D(0.2)(x))
    x = layers.Concatenate()(
        [
            layers.GlobalAveragePooling2D()(x),
            layers.Dropout(0.3, noise_shape=(None, 1))(inputs["more"]),
        ]
    )
    return keras.Model(inputs, {"logits": layers.Dense(3)(x), "features": x})


def sample(count=7):
    random = np.random.default_rng(0)
    return {
        "image": random.normal(size=(count, 6, 6, 2)).astype("float32"),
        "more": random.normal(size=(count, 3)).astype("float32"),
    }


def state(model):
    arrays = [keras.ops.convert_to_numpy(variable.value).tobytes() for variable in model.variables]
    flags = [
        (layer.name, layer.trainable, getattr(layer, "monte_carlo", None), sorted(vars(layer)))
        for layer in sublayers(model)
    ]
    return arrays, flags, model.to_json()


def test_the_same_seed_gives_the_same_numbers_and_the_model_stays_as_it_was():
    model = network()
    expected = model.predict(sample(), verbose=0)
    before = state(model)
    first = keras_ic.predict_with_uncertainty(model, sample(), samples=5, batch_size=3, seed=1)
    assert state(model) == before
    again = keras_ic.predict_with_uncertainty(model, sample(), samples=5, batch_size=3, seed=1)
    other = keras_ic.predict_with_uncertainty(model, sample(), samples=5, batch_size=3, seed=2)
    for name, shape in (("logits", (7, 3)), ("features", (7, 7))):
        assert (
            first.mean[name].shape == first.std[name].shape == shape
            and first.mean[name].dtype == np.float32
        )
        np.testing.assert_array_equal(first.mean[name], again.mean[name])
        np.testing.assert_array_equal(first.std[name], again.std[name])
        assert np.abs(first.mean[name] - other.mean[name]).max() > 0 and (first.std[name] > 0).any()
    # What predict compiled before is not what it would compile with dropout on.
    np.testing.assert_allclose(
        model.predict(sample(), verbose=0)["logits"], expected["logits"], rtol=1e-5, atol=1e-6
    )


def test_mean_and_spread_are_those_of_dropout():
    """Of one linear layer after a dropout, both are known: the mean is the prediction without
    dropout, the variance a sum of squares.
    """
    rate, samples = 0.25, 1000
    model = keras.Sequential([keras.Input((8,)), keras_ic.IC(rate), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(2, 8)).astype("float32")
    mean, std = keras_ic.predict_with_uncertainty(model, x, samples=samples, seed=3)
    kernel = model.layers[-1].kernel.numpy()
    expected = np.sqrt((x / np.sqrt(1.001)) ** 2 @ kernel**2 * rate / (1 - rate))
    np.testing.assert_allclose(std, expected, rtol=5 / np.sqrt(2 * samples))
    assert np.all(np.abs(mean - model.predict(x, verbose=0)) < 5 * expected / np.sqrt(samples))


def test_masks_of_stock_dropout_have_their_shapes():
    inputs = keras.Input((5, 5, 4))
    model = keras.Model(
        inputs,
        [
            layers.SpatialDropout2D(0.5)(inputs),
            layers.Dropout(0.5, noise_shape=(None, 5, 1, 1))(inputs),
        ],
    )
    spatial, rows = keras_ic.predict_with_uncertainty(
        model, np.ones((6, 5, 5, 4), "float32"), samples=2
    ).mean
    assert set(np.unique(spatial)) == set(np.unique(rows)) == {0.0, 1.0, 2.0}
    assert np.all(spatial == spatial[:, :1, :1]) and np.all(rows == rows[:, :, :1, :1])
    assert np.ptp(spatial, axis=3).any() and np.ptp(rows, axis=1).any()


def test_a_frozen_model_samples_too_and_keeps_its_statistics():
    model = network()
    model.trainable = False
    before = state(model)
    assert keras_ic.predict_with_uncertainty(model, sample(), samples=3).std["logits"].max() > 0
    assert state(model) == before


def test_a_switch_that_was_on_stays_on():
    model = network()
    model.get_layer("ic").monte_carlo = True
    keras_ic.predict_with_uncertainty(model, sample(2), samples=2)
    assert model.get_layer("ic").monte_carlo is True


def test_an_interruption_leaves_the_model_as_it_was():
    class Stops(layers.Layer):
        stop = False

        def call(self, inputs):
            if self.stop:
                raise KeyboardInterrupt
            return inputs

    stops = Stops()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, stops(layers.Dropout(0.5)(keras_ic.IC(0.1)(inputs))))
    before = state(model)[:2]
    Stops.stop = True
    with pytest.raises(KeyboardInterrupt):
        keras_ic.predict_with_uncertainty(model, np.ones((2, 4), "float32"))
    assert model.variables and state(model)[:2] == before


def test_attention_drops_too_and_what_was_raised_from_0_is_passed_over():
    inputs = keras.Input((3, 4))
    raised = keras.layers.Dropout(0)
    model = keras.Model(
        inputs, raised(keras.layers.MultiHeadAttention(2, 4, dropout=0.5)(inputs, inputs))
    )
    raised.rate = 0.5
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    assert keras_ic.predict_with_uncertainty(model, x, samples=4).std.max() > 0


class Tripled(keras.layers.Dropout):
    def call(self, inputs, training=False):
        return super().call(inputs * 3.0, training=training)


def test_what_cannot_be_sampled_is_named():
    x = np.ones((2, 3, 4), "float32")
    total = keras.Input((3, 4))
    for model, said in (
        (keras.Sequential([keras.Input((3, 4)), Tripled(0.5, name="mine")]), "Received: mine$"),
        (
            keras.Model(total, keras.ops.sum(keras_ic.IC(0.1)(total))),
            r"one entry for each input.*Received: outputs of shapes \[\(\)\] for 2 inputs",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            keras_ic.predict_with_uncertainty(model, x)


class Halves(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {name: array[4 * index : 4 * index + 4] for name, array in sample(8).items()}, None


class OnlyMore(Halves):
    def __getitem__(self, index):
        return ({"more": sample(4)["more"]},)


def test_every_kind_of_data_gives_the_same(capsys):
    model = network()
    options = {"samples": 3, "verbose": 0}
    expected = keras_ic.predict_with_uncertainty(model, sample(8), batch_size=4, **options)
    for data in (Halves(), (Halves()[index] for index in range(2))):
        found = keras_ic.predict_with_uncertainty(model, data, **options)
        np.testing.assert_allclose(found.mean["logits"], expected.mean["logits"], rtol=1e-6)
        np.testing.assert_allclose(found.std["logits"], expected.std["logits"], rtol=1e-5)
    assert capsys.readouterr().out == ""
    part = keras_ic.predict_with_uncertainty(model, Halves(), samples=3, steps=1)
    np.testing.assert_array_equal(part.mean["logits"], expected.mean["logits"][:4])
    assert "1/1" in capsys.readouterr().out


@pytest.mark.tensorflow_only
def test_a_dataset():
    import tensorflow as tf

    model, options = network(), {"samples": 2, "verbose": 0}
    data = tf.data.Dataset.from_tensor_slices((sample(6), np.zeros(6))).batch(3)
    found = keras_ic.predict_with_uncertainty(model, data, **options)
    expected = keras_ic.predict_with_uncertainty(model, sample(6), batch_size=3, **options)
    np.testing.assert_array_equal(found.mean["logits"], expected.mean["logits"])


def test_words_on_data_are_those_of_recalibrate():
    model = network()
    kinds = {
        "no examples": lambda: sample(0),
        "a word": lambda: "data",
        "nothing": lambda: None,
        "a generator that is at its end": lambda: (each for each in ()),
        "a generator of one input of two": lambda: (each for each in [(np.zeros((2, 3)),)]),
        "a dataset of one input of two": OnlyMore,
        "arrays of other lengths": lambda: [np.zeros((2, 3)), np.zeros((3, 3))],
    }
    for kind, make in kinds.items():
        said = []
        for function in (keras_ic.predict_with_uncertainty, keras_ic.recalibrate):
            with pytest.raises(ValueError, match=r"`data`.*Received: ") as raised:
                function(model, make(), verbose=0)
            said.append(str(raised.value))
        assert said[0] == said[1], kind


def test_a_sample_runs_compiled():
    """A recurrent network runs step by step where nothing compiles it."""
    traces = []

    class Traced(layers.Layer):
        def call(self, inputs):
            traces.append(1)
            return inputs

    model = keras.Sequential(
        [keras.Input((30, 2)), Traced(), layers.LSTM(3), layers.Dropout(0.5), layers.Dense(1)]
    )
    traces.clear()
    x = np.zeros((4, 30, 2), "float32")
    keras_ic.predict_with_uncertainty(model, x, samples=5, verbose=0)
    assert len(traces) == (5 if keras.backend.backend() == "torch" else 1)


def test_errors():
    model, x = network(), sample()
    for wrong, said in (
        ({"samples": 1}, r"`samples` must be an integer of 2 or more. Received: samples=1"),
        ({"steps": 9}, r"as many as `steps` says. Received: steps=9, data of 1 batches"),
        ({"batch_size": 0}, r"`batch_size` must be an integer above 0. Received"),
        ({"verbose": "loud"}, "Received: verbose='loud'"),
        ({"seed": -1}, r"`seed` must be an integer in .*Received: seed=-1"),
        ({"data": {**x, "more": x["more"][:2]}}, r"as many examples in each.*Received: arrays"),
        ({"data": {**x, "more": x["more"][:, :2]}}, r"must fit the inputs of model.*Received"),
        ({"data": sample(0)}, r"at least one batch.*Received"),
        ({"data": "data"}, r"something that `fit` takes.*Received: data of type str"),
        (
            {"model": keras.Sequential([keras.Input((2,)), keras_ic.IC(0.0)])},
            r"no IC or Dropout layer with a rate above 0.*Received: model",
        ),
        ({"model": 3}, r"must be a keras.Model. Received"),
    ):
        with pytest.raises(ValueError, match=said):
            keras_ic.predict_with_uncertainty(**{"model": model, "data": x, **wrong})
