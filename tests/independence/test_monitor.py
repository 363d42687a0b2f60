"""The callback: what it writes, and that training does not notice it."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(48, 6)).astype("float32"), RANDOM.normal(size=(48, 2)).astype("float32")


def trained(callbacks, epochs=3):
    keras.utils.set_random_seed(7)
    stack = [
        keras.Input((6,)),
        layers.Dense(8, activation="relu"),
        keras_ic.IC(0.2, name="ic"),
        layers.Dropout(0.3),
        layers.Dense(2, name="last"),
    ]
    model = keras.Sequential(stack)
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=16, epochs=epochs, callbacks=callbacks, verbose=0)
    return model


def test_training_gives_the_same_weights_with_it_and_without_it():
    monitor = keras_ic.IndependenceMonitor(X, batch_size=16)
    with_it, without = trained([monitor]), trained([])
    assert len(monitor.reports) == 3
    for one, other in zip(with_it.variables, without.variables, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )


def test_it_measures_the_model_as_it_is_after_the_epoch():
    monitor = keras_ic.IndependenceMonitor(X)
    model = trained([monitor], epochs=2)
    now = keras_ic.measure(model, X, verbose=0)
    assert monitor.reports[2].to_dict()["rows"][3] == now.to_dict()["rows"][3]
    assert monitor.reports[2].shifts[0].ratio == pytest.approx(now.shifts[0].ratio)
    assert monitor.reports[1].shifts[0].ratio != monitor.reports[2].shifts[0].ratio


def test_the_record(tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_text('{"epoch": 0}\n')
    trained([keras_ic.IndependenceMonitor(X, every=2, record=path, channels=4, steps=1)], epochs=4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 2, 4]
    assert [(row["layer"], row["mode"]) for row in lines[1]["rows"]][2:] == [
        ("last", "training"),
        ("last", "inference"),
    ]
    assert {row["sampled"] for row in lines[1]["rows"]} == {4}
    assert {row["rows"] for row in lines[1]["rows"]} == {32}
    assert lines[1]["shifts"][0]["layer"] == "ic"


def test_values_are_in_the_logs_and_the_history():
    monitor = keras_ic.IndependenceMonitor(X, every=2)
    seen = []
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(set(logs)))
    history = trained([monitor, after]).history.history
    rows = [row for row in monitor.reports[2].rows if row.mode == "training"]
    assert history["independence/training/correlation"] == [
        pytest.approx(np.mean([row.correlation for row in rows]))
    ]
    assert history["independence/variance_ratio"] == [
        pytest.approx(monitor.reports[2].shifts[0].ratio)
    ]
    assert [len(names) for names in seen] == [1, 6, 1]
    history = trained([keras_ic.IndependenceMonitor(X, per_layer=True)], 1).history.history
    assert "independence/inference/effective_rank/last" in history
    assert "independence/variance_ratio/ic" in history


@pytest.mark.tensorflow_only
def test_tensorboard_shows_the_values_of_each_layer(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    import tensorflow as tf
    from tensorflow.core.util.event_pb2 import Event

    monitor = keras_ic.IndependenceMonitor(X, per_layer=True)
    trained([monitor, keras.callbacks.TensorBoard(tmp_path, write_graph=False)], epochs=1)
    (path,) = tmp_path.glob("train/events*")
    found = {
        value.tag: float(tf.make_ndarray(value.tensor))
        for record in tf.data.TFRecordDataset(str(path))
        for value in Event.FromString(record.numpy()).summary.value
        if "independence" in value.tag
    }
    name = "epoch_independence/training/correlation/last"
    assert found[name] == pytest.approx(monitor.reports[1].rows[2].correlation)
    assert "epoch_independence/variance_ratio/ic" in found


def test_bad_input(tmp_path):
    for call, message in (
        (lambda: keras_ic.IndependenceMonitor(X, every=0), "Received: every=0"),
        (
            lambda: keras_ic.IndependenceMonitor(X, record=tmp_path / "no" / "record.jsonl"),
            "no such folder.*Received: record=",
        ),
        (lambda: keras_ic.IndependenceMonitor(X, channels=0), "Received: channels=0"),
        (lambda: keras_ic.IndependenceMonitor(X, per_layer=1), "Received: per_layer=1"),
        (lambda: keras_ic.IndependenceMonitor(X, steps=0), "Received: steps=0"),
        (lambda: keras_ic.IndependenceMonitor(X, batch_size=-1), "Received: batch_size=-1"),
        (
            lambda: keras_ic.IndependenceMonitor(batch for batch in [X]),
            "again in each epoch.*Received: data of type generator",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
