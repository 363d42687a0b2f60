"""Measuring models: the numbers, what counts as an input, and that the model is left alone."""

import json
import random

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.independence import measuring
from keras_ic.independence.running_covariance import RunningCovariance
from tests.surgery import models

COUNTS = {"batch_size": 64, "verbose": 0}


def images(count=96, size=8, channels=3, seed=0):
    """Images whose channels are correlated."""
    values = np.random.default_rng(seed).normal(size=(count, size, size, channels))
    return (values + 0.7 * values[..., :1] + 0.5).astype("float32")


def network():
    stack = [
        keras.Input((8, 8, 3)),
        layers.Conv2D(6, 3, activation="relu", name="conv1"),
        keras_ic.IC(0.2, seed=1, name="ic"),
        layers.Conv2D(5, 3, name="conv2"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dropout(0.3, seed=2),
        layers.Dense(4, name="dense"),
    ]
    return models.randomize(keras.Sequential(stack, name="net"))


def rows_of(report):
    return {(row.layer, row.mode): row for row in report.rows}


def correlation_of(values):
    matrix = np.corrcoef(values.reshape(-1, values.shape[-1]).T.astype("float64"))
    return np.abs(matrix[np.triu_indices(len(matrix), 1)]).mean()


def test_inference_agrees_with_the_activations():
    model, x = network(), images()
    report = keras_ic.measure(model, x, **COUNTS)
    found = rows_of(report)
    assert [row.layer for row in report.rows[::2]] == ["conv1", "conv2", "dense"]
    assert [row.mode for row in report.rows] == ["training", "inference"] * 3
    for name in ("conv1", "conv2"):
        values = (
            keras.Model(model.inputs, model.get_layer(name).input).predict(x, verbose=0)
            if name != "conv1"
            else x
        )
        row = found[name, "inference"]
        # Each batch gives at most 4096 positions; conv2 has 36 an image, so all of them.
        if name == "conv2":
            assert row.rows == values[..., 0].size
            np.testing.assert_allclose(row.correlation, correlation_of(values), rtol=1e-4)
            covariance = np.cov(values.reshape(-1, 6).T, bias=True)
            np.testing.assert_allclose(
                row.covariance_distance,
                np.linalg.norm(covariance - np.eye(6)) / np.sqrt(6),
                rtol=1e-4,
            )
        assert row.channels == row.sampled == values.shape[-1]
        np.testing.assert_allclose(row.correlation, correlation_of(values), atol=0.02)
    assert found["dense", "inference"].channels == 80
    assert (found["dense", "inference"].sampled, found["dense", "inference"].rows) == (64, 96)


def test_training_mode_normalizes_with_the_batch_and_drops():
    model = keras.Sequential(
        [keras.Input((3,)), keras_ic.IC(0.4, seed=0, epsilon=1e-6), layers.Dense(2, name="dense")]
    )
    x = images(20_000, 1).reshape(-1, 3) * 5
    found = rows_of(keras_ic.measure(model, x, batch_size=20_000, rows=20_000, verbose=0))
    before, after = found["dense", "inference"], found["dense", "training"]
    np.testing.assert_allclose(after.correlation, 0.6 * before.correlation, atol=0.02)
    np.testing.assert_allclose(
        after.mutual_information, 0.36 * before.mutual_information, atol=0.02
    )
    without = keras.Sequential(
        [keras.Input((3,)), keras_ic.IC(0.0, epsilon=1e-6), layers.Dense(2, name="dense")]
    )
    row = rows_of(keras_ic.measure(without, x, batch_size=20_000, rows=20_000, verbose=0))[
        "dense", "training"
    ]
    # A covariance that is a correlation matrix: variance 1.
    np.testing.assert_allclose(
        row.covariance_distance, row.correlation_distance * np.sqrt(2), rtol=1e-3
    )


def test_nothing_of_the_model_or_of_the_random_state_changes():
    model, x = network(), images(32)
    model.compile("adam", "mse")
    state = models.Unchanged(model)
    variables = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    assert len(variables) > len(model.weights)  # the random states
    global_state = random.getstate(), np.random.get_state()[1].tolist()
    keras_ic.measure(model, x, **COUNTS)
    state.check()
    for before, variable in zip(variables, model.variables, strict=True):
        np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(variable))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == global_state
    first = keras.random.uniform((3,))
    # Before Keras 3.13, the seed alone leaves a global generator where it is.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1234)
    network(), images(32)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(first), keras.ops.convert_to_numpy(keras.random.uniform((3,)))
    )


def test_an_interrupted_pass_leaves_the_model_alone():
    def interrupted():
        yield images(8), None
        raise KeyboardInterrupt

    model = network()
    state = models.Unchanged(model)
    with pytest.raises(KeyboardInterrupt):
        keras_ic.measure(model, interrupted(), verbose=0)
    state.check()


def test_the_seed_decides():
    model, x = network(), images(32)
    meter, another = (measuring.Meter(model, channels=4, rows=50, seed=seed) for seed in (0, 1))
    one, same, other = (
        each.measure(x, batch_size=16).to_dict() for each in (meter, meter, another)
    )
    for first, second, third in zip(one["rows"], same["rows"], other["rows"], strict=True):
        assert first["rows"] == third["rows"] == (100 if first["layer"] != "dense" else 32)
        assert first == second
        assert first["correlation"] != third["correlation"]


def test_variance_shift():
    x = images(128, 1).reshape(-1, 3)
    ic = keras_ic.IC(0.2, name="ic")
    model = keras.Sequential(
        [
            keras.Input((3,)),
            ic,
            layers.Dense(4),
            layers.Dropout(0.5),
            layers.BatchNormalization(name="bn"),
            layers.Dense(2),
        ]
    )
    ic.moving_variance.assign([1.0, 4.0, 0.5])
    shift = keras_ic.measure(model, x, **COUNTS).shifts[0]
    ratios = (x.var(0) + ic.epsilon) / (np.array([1.0, 4.0, 0.5]) + ic.epsilon)
    np.testing.assert_allclose(shift.ratio, np.exp(np.log(ratios).mean()), rtol=1e-4)
    np.testing.assert_allclose(
        (shift.lowest, shift.highest), (ratios.min(), ratios.max()), rtol=1e-4
    )
    np.testing.assert_allclose(shift.shift, np.maximum(ratios, 1 / ratios).mean(), rtol=1e-4)
    keras_ic.recalibrate(model, x, batch_size=128, verbose=0)
    for shift in keras_ic.measure(model, x, **COUNTS).shifts:
        np.testing.assert_allclose((shift.ratio, shift.shift), 1, atol=1e-3)


def test_nested_shared_and_inner_layers():
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="deep")], name="inner")
    a, b = keras.Input((4,)), keras.Input((4,))
    joined = layers.Add()([shared(a), inner(shared(b))])
    sequence = layers.Reshape((2, 2))(joined)
    attended = layers.MultiHeadAttention(2, 3, name="attention")(sequence, sequence)
    timed = layers.TimeDistributed(layers.Dense(3, name="within"), name="timed")(attended)
    model = keras.Model([a, b], timed)
    x, y = np.random.default_rng(0).normal(size=(2, 40, 4)).astype("float32")
    report = keras_ic.measure(model, [x, y + 3], **COUNTS)
    found = rows_of(report)
    assert {layer for layer, _ in found} == {
        "shared",
        "inner/deep",
        "timed",
        *(f"attention/{name}" for name in ("query", "key", "value", "attention_output")),
    }
    # Both calls together: the two clouds lie 3 apart.
    np.testing.assert_allclose(
        found["shared", "inference"].correlation,
        correlation_of(np.concatenate([x, y + 3])),
        rtol=1e-4,
    )
    assert found["shared", "inference"].rows == 80
    assert found["attention/attention_output", "inference"].channels == 6
    assert (
        found["timed", "inference"].channels,
        found["timed", "inference"].rows,
        found["timed", "inference"].type,
    ) == (2, 80, "Dense")
    assert report.skipped == ()


def test_subclassed_models_and_what_cannot_be_measured():
    class Cell(layers.Layer):
        state_size = 3

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(3, name="stepwise")

        def build(self, input_shape):
            self.dense.build((None, input_shape[-1] + 3))

        def call(self, inputs, states):
            output = self.dense(keras.ops.concatenate([inputs, states[0]], axis=-1))
            return output, [output]

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.recurrent = layers.RNN(Cell(name="cell"), name="recurrent")
            self.dense = layers.Dense(2, name="dense")
            self.unused = layers.Dense(2, name="unused")
            self.unused.build((None, 3))

        def call(self, inputs, training=None):
            return self.dense(self.recurrent(inputs))

    model, x = Subclassed(), np.random.default_rng(0).normal(size=(20, 3, 4)).astype("float32")
    model(x)
    report = keras_ic.measure(model, x, verbose=0)
    assert {row.layer for row in report.rows} == {"dense"}
    assert dict(report.skipped) == {
        "unused": "not called, or no position that counts",
        "recurrent/cell/stepwise": "runs step by step inside another layer",
    }
    assert "recurrent/cell/stepwise" in str(report)


def test_mixed_precision_and_sizes_that_are_not_known():
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3, name="conv1", dtype="mixed_float16"),
            layers.Conv2D(4, 3, name="conv2", dtype="mixed_float16"),
        ]
    )
    batches = [(images(4, size),) for size in (6, 8)]
    found = rows_of(keras_ic.measure(model, (batch for batch in batches), rows=100, verbose=0))
    assert found["conv1", "inference"].rows == 200
    assert found["conv2", "inference"].rows == 4 * 16 + 100
    np.testing.assert_allclose(
        found["conv1", "inference"].correlation, correlation_of(images(100)), atol=0.1
    )


def test_weights_that_are_not_finite():
    model = network()
    model.get_layer("conv2").kernel.assign(np.full((3, 3, 6, 5), np.nan))
    report = keras_ic.measure(model, images(16), verbose=0)
    values = {row["layer"]: row["correlation"] for row in report.to_dict()["rows"]}
    assert values["conv1"] is not None and values["conv2"] is not None and values["dense"] is None
    assert [shift["ratio"] is None for shift in report.to_dict()["shifts"]] == [False, True]
    json.dumps(report.to_dict(), allow_nan=False)
    assert " - " in str(report)


def test_memory_is_bounded_whatever_the_width_and_the_images(monkeypatch):
    kept = []

    class Watched(RunningCovariance):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            kept.append(self)

    monkeypatch.setattr(measuring, "RunningCovariance", Watched)
    stack = [layers.Conv2D(2048, 1), layers.BatchNormalization(), layers.Conv2D(4, 3)]
    model = keras.Sequential([keras.Input((64, 64, 3)), *stack])
    channels, rows = 16, 128
    report = keras_ic.measure(
        model, images(6, 64), batch_size=2, channels=channels, rows=rows, pairs=4, verbose=0
    )
    assert len(kept) == len(report.rows) == 2 * 2 and len(report.shifts) == 1
    assert max(stream.reservoir.nbytes for stream in kept) == 4 * rows * channels
    assert max(stream.covariance.nbytes for stream in kept) == 8 * channels**2
    assert max(row.channels for row in report.rows) == 2048
    assert max(row.rows for row in report.rows) == 3 * rows


@pytest.mark.tensorflow_only
def test_under_a_strategy(strategy):
    single = network()
    with strategy.scope():
        model = network()
    model.set_weights(single.get_weights())
    expected, found = (
        rows_of(keras_ic.measure(one, images(32), **COUNTS)) for one in (single, model)
    )
    for key, row in expected.items():
        assert found[key].rows == row.rows
        if key[1] == "inference":
            np.testing.assert_allclose(found[key].correlation, row.correlation, rtol=1e-4)


def test_bad_input():
    model, x = network(), images(8)
    no_weights = keras.Sequential([keras.Input((3,)), layers.ReLU()], name="none")
    for call, message in (
        (lambda: keras_ic.measure("model", x), "must be a keras.Model. Received: model='model'"),
        (
            lambda: keras_ic.measure(no_weights, x),
            "must have weight layers.*Received: model 'none'",
        ),
        (
            lambda: keras_ic.measure(keras.Sequential([layers.Dense(2)], name="open"), x),
            "must be built.*Received: model 'open'",
        ),
        (
            lambda: keras_ic.measure(model, images(8, 6), verbose=0),
            r"must fit the inputs of model 'net'.*Received.*\(8, 6, 6, 3\)",
        ),
        (lambda: keras_ic.measure(model, x, 9, verbose=0), "Received: steps=9, data of 1 batches"),
        (lambda: keras_ic.measure(model, images(0), verbose=0), "at least one batch"),
        (lambda: keras_ic.measure(model, "data"), "something that `fit` takes"),
        (
            lambda: keras_ic.measure(model, x, channels=1),
            "`channels` must be an integer above 1. Received: channels=1",
        ),
        (lambda: keras_ic.measure(model, x, rows=0), "Received: rows=0"),
        (lambda: keras_ic.measure(model, x, pairs=0), "Received: pairs=0"),
        (lambda: keras_ic.measure(model, x, seed=-1), "Received: seed=-1"),
        (lambda: keras_ic.measure(model, x, verbose="loud"), "Received: verbose='loud'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
