import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.recalibration import too_short_for_momentum

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(3.0, 2.0, (200, 5)).astype("float32")
Y = (X[:, :1] - X[:, 1:2]).astype("float32")
VALIDATION = (X[160:], Y[160:])


def network(frozen=False):
    keras.utils.set_random_seed(7)
    stack = [
        keras.Input((5,)),
        layers.BatchNormalization(name="bn", trainable=not frozen),
        layers.Dense(8, activation="relu"),
        keras_ic.IC(0.3, seed=1, name="ic"),
        layers.Dense(1),
    ]
    model = keras.Sequential(stack, name="net")
    model.compile("adam", "mse")
    return model


def trained(*callbacks, model=None, epochs=2, validation=VALIDATION, **options):
    model = network() if model is None else model
    options = {"verbose": 0, "shuffle": False, "batch_size": 16, **options}
    history = model.fit(
        X[:160],
        Y[:160],
        epochs=epochs,
        validation_data=validation,
        callbacks=list(callbacks),
        **options,
    )
    return model, history.history


def statistics(model):
    return [
        keras.ops.convert_to_numpy(weight) for weight in model.weights if "moving" in weight.path
    ]


class Batches(keras.utils.PyDataset):
    ended = 0

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return X[16 * index : 16 * index + 16], None

    def on_epoch_end(self):
        self.ended += 1


def test_validation_sees_what_will_be_deployed():
    best = keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True)
    model, history = trained(keras_ic.Recalibration(X[:160], 1, batch_size=160), best)
    last = int(np.argmin(history["val_loss"]))
    np.testing.assert_allclose(
        model.evaluate(*VALIDATION, verbose=0), history["val_loss"][last], rtol=1e-5
    )
    before = statistics(model)
    keras_ic.recalibrate(model, X[:160], batch_size=160, verbose=0)
    for one, other in zip(before, statistics(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert len(history["recalibration_seconds"]) == 2


def test_training_does_not_depend_on_it_and_compare_shows_both():
    plain, expected = trained()
    model, history = trained(keras_ic.Recalibration(X[:160], compare=True))
    for one, other in zip(plain.variables, model.variables, strict=True):
        if "moving" not in one.path:
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
            )
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-6)
    # The first epoch's statistics by momentum start from the same place.
    np.testing.assert_allclose(
        history["val_loss_as_trained"][0], expected["val_loss"][0], rtol=1e-5
    )
    assert abs(history["val_loss"][0] - history["val_loss_as_trained"][0]) > 0.1
    assert model.evaluate(*VALIDATION, verbose=0) == pytest.approx(history["val_loss"][-1])


def test_a_training_goes_on_exactly(tmp_path):
    _, whole = trained(keras_ic.Recalibration(X[:160], every=2), epochs=4)
    model, first = trained(keras_ic.Recalibration(X[:160], every=2), epochs=2)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    _, second = trained(
        keras_ic.Recalibration(X[:160], every=2), model=model, epochs=4, initial_epoch=2
    )
    assert first["val_loss"] + second["val_loss"] == whole["val_loss"]


def test_without_validation_and_the_last_epoch():
    callback = keras_ic.Recalibration(X[:160], every=2)
    model, history = trained(callback, epochs=3, validation=None)
    assert list(callback.seconds) == [2, 3] and len(history["recalibration_seconds"]) == 1
    before = statistics(model)
    trained(keras_ic.Recalibration(X[:160]), model=model, epochs=1, validation=None)
    # Of the same inputs and other weights.
    np.testing.assert_array_equal(before[0], statistics(model)[0])
    assert np.abs(before[2] - statistics(model)[2]).max() > 0


def test_only_the_validations_of_fit():
    callback = keras_ic.Recalibration(X[:160])
    model, _ = trained(callback)
    before = statistics(model)
    model.layers[0].gamma.assign(np.full(5, 3.0))
    model.evaluate(*VALIDATION, callbacks=[callback], verbose=0)
    for one, other in zip(before, statistics(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_how_much_of_the_data(capsys):
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(X[:160])), batch_size=16, shuffle=True
    )
    batches = Batches()
    for data, options, read in (
        (X[:160], {}, 1),
        (X[:160], {"batch_size": 8}, 4),
        (X[:160], {"steps": 3, "batch_size": 16}, 3),
        (batches, {}, 2),
        (batches, {"steps": 10}, 10),
        (loader, {}, 2),
    ):
        trained(keras_ic.Recalibration(data, **options), epochs=1, verbose=2)
        assert f"Recalibration: 1 times {read} batches" in capsys.readouterr().out
    assert batches.ended == 0


def test_arrays_in_an_order_are_mixed():
    ordered = np.repeat(np.arange(100.0), 50)[:, np.newaxis].astype("float32")
    model = keras.Sequential([keras.Input((1,)), layers.BatchNormalization(), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(ordered, ordered, callbacks=[keras_ic.Recalibration(ordered)], verbose=0)
    np.testing.assert_allclose(statistics(model)[0], 49.5, atol=3)


@pytest.mark.tensorflow_only
def test_data_without_end():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).repeat()
    callback = keras_ic.Recalibration(data)
    trained(callback, epochs=1)
    assert list(callback.seconds) == [1]


def test_frozen_layers_are_left_alone():
    model = network(frozen=True)
    trained(keras_ic.Recalibration(X[:160]), model=model)
    assert not statistics(model)[0].any() and statistics(model)[2].any()


@pytest.mark.tensorflow_only
def test_under_a_strategy(strategy):
    with strategy.scope():
        model = network()
    trained(keras_ic.Recalibration(X[:160], 1, batch_size=160), model=model, epochs=1)
    before = statistics(model)
    keras_ic.recalibrate(model, X[:160], batch_size=160, verbose=0)
    for one, other in zip(before, statistics(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_bad_input():
    for call, message in (
        (lambda: keras_ic.Recalibration(X, steps=0), "Received: steps=0"),
        (lambda: keras_ic.Recalibration(X, every=0), "Received: every=0"),
        (lambda: keras_ic.Recalibration(X, batch_size=1.5), "Received: batch_size=1.5"),
        (lambda: keras_ic.Recalibration(X, compare="yes"), "Received: compare='yes'"),
        (
            lambda: keras_ic.Recalibration(x for x in [X]),
            "again in each epoch.*Received: data of type generator",
        ),
        (
            lambda: trained(keras_ic.Recalibration(X[:, :4])),
            r"must fit the inputs of model 'net'.*Received.*\(128, 4\)|must fit.*\(.*, 4\)",
        ),
        (lambda: trained(keras_ic.Recalibration(None)), "`fit` takes.*Received: data=None"),
        (lambda: trained(keras_ic.Recalibration([])), r"`fit` takes.*Received: data=\[\]"),
        (
            lambda: trained(keras_ic.Recalibration(Batches(), steps=11)),
            "as many as `steps` says. Received: steps=11",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    frozen = network()
    frozen.trainable = False
    with pytest.raises(ValueError, match=r"frozen.*Received: model 'net'"):
        trained(keras_ic.Recalibration(X), model=frozen)


def test_too_short_for_momentum():
    model = network()
    assert too_short_for_momentum(model, 500) is None
    said = too_short_for_momentum(model, 499)
    assert said.startswith("499 steps are too few for the moving statistics of 2 layers (bn has")
    assert "momentum 0.99, which takes 500 steps" in said and "\n" not in said
    model.get_layer("ic").momentum = 1.0
    assert "ic has momentum 1, which takes no number of steps" in too_short_for_momentum(model, 500)
    with pytest.raises(ValueError, match=r"`steps` must be.*Received: steps=-1"):
        too_short_for_momentum(model, -1)
