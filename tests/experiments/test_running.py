import errno
import json
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ic import data, saving
from keras_ic.experiments import Configuration, network, read, record, run, running
from keras_ic.experiments.schedules import OneCycle, RateSchedule, ic_layers, optimizer

pytestmark = pytest.mark.tensorflow_only  # the images come through tf.data
# So that the last batch is a small one.
SMALL = {"data": "digits", "model": "small", "batch": 32, "train_size": 70}

# Runs a configuration once through and once until it is killed, between the line of an epoch and
# its checkpoint.
KILLED = """
import json, os, pathlib, signal, sys
from keras_ic import saving
from keras_ic.experiments import Configuration, run

what, folder, values = sys.argv[1], pathlib.Path(sys.argv[2]), json.loads(sys.argv[3])
if what == "through":
    run(Configuration(**values), folder / "through", verbose=0)
    save, saved = saving.save_model, []

    def save_once(model, path):
        if len(saved) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        saved.append(save(model, path))

    saving.save_model = save_once
run(Configuration(**values), folder / "broken", verbose=0)
"""


def small(**values):
    return Configuration(**{**SMALL, "epochs": 2, **values})


def epochs(folder):
    """The epochs of a record without what no two runs share."""
    return [
        {key: value for key, value in epoch.items() if "seconds" not in key}
        for epoch in read(folder).epochs
    ]


def weights(path):
    model = saving.load_model(path)
    return [
        keras.ops.convert_to_numpy(variable)
        for variable in model.variables + model.optimizer.variables
    ]


def test_a_part_of_the_training_images_is_judged_on(tmp_path):
    (x, _), (x_test, _) = running.images(small())
    (kept, y_kept), (judged, y_judged) = running.images(small(validation=0.2))
    assert len(judged) == len(y_judged) == 14 and len(kept) == len(y_kept) == 56
    assert {image.tobytes() for image in np.concatenate([kept, judged])} == {
        image.tobytes() for image in x
    }
    np.testing.assert_array_equal(judged, running.images(small(validation=0.2, seed=7))[1][0])
    np.testing.assert_array_equal(x_test, data.digits()[1][0])
    record = run(small(validation=0.2, epochs=1), tmp_path, verbose=0)
    model = saving.load_model(tmp_path / "model.keras")
    result = model.evaluate(
        data.test_dataset(judged, y_judged, 250, *data.channel_statistics(kept)),
        verbose=0,
        return_dict=True,
    )
    assert record.values("val_accuracy")[0] == pytest.approx(result["accuracy"])
    for share in (0.001, 0.999):
        with pytest.raises(ValueError, match="`validation` must leave"):
            run(small(validation=share), tmp_path / "none", verbose=0)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"rate": 0.1, "rate_schedule": "grow"},
        {
            "order": "usual",
            "dropout": 0.2,
            "schedule": "one-cycle",
            "decoupled_weight_decay": 0.1,
            "augment": True,
        },
        {"optimizer": "sgd", "schedule": "constant", "keep_batch_norm": True, "recalibrate": True},
    ],
    ids=["ic", "usual", "sgd"],
)
def test_killed_and_resumed_is_bit_for_bit_unbroken(values, tmp_path):
    values = json.dumps({**SMALL, "epochs": 4, **values})

    def start(what):
        return subprocess.run(
            [sys.executable, "-c", KILLED, what, str(tmp_path), values],
            capture_output=True,
            text=True,
        )

    first = start("through")
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert len(epochs(tmp_path / "broken")) == 3
    assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == [
        "checkpoint.keras",
        "record.jsonl",
    ]
    second = start("go on")
    assert second.returncode == 0, second.stderr
    assert epochs(tmp_path / "broken") == epochs(tmp_path / "through")
    assert read(tmp_path / "broken").recalibrated == read(tmp_path / "through").recalibrated
    for one, two in zip(
        weights(tmp_path / "broken" / "model.keras"),
        weights(tmp_path / "through" / "model.keras"),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == [
        "model.keras",
        "record.jsonl",
    ]


def test_what_a_run_leaves(tmp_path):
    made = run(small(seed=7), tmp_path / "run", verbose=0)
    assert (
        made == read(tmp_path / "run") and made.is_finished and made.configuration == small(seed=7)
    )
    head, *lines = (
        json.loads(line) for line in (tmp_path / "run" / "record.jsonl").read_text().splitlines()
    )
    assert head["seed"] == 7 and "seed" not in head["configuration"] and head["steps"] == 3
    assert {"keras_ic", "keras", "tensorflow", "numpy", "python"} <= set(head["versions"])
    assert [list(line)[:6] for line in lines] == [
        ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    ] * 2
    assert all(0 < line["step_seconds"] < line["seconds"] for line in lines)
    model = saving.load_model(tmp_path / "run" / "model.keras")
    assert head["parameters"] == sum(
        int(np.prod(variable.shape)) for variable in model.trainable_variables
    )
    (x, _), (x_test, y_test) = data.digits()
    mean, std = data.channel_statistics(x[:70])
    loss, accuracy = model.evaluate((x_test - mean) / std, y_test, verbose=0)
    np.testing.assert_allclose(
        [loss, accuracy], [lines[-1]["val_loss"], lines[-1]["val_accuracy"]], rtol=1e-5
    )


def test_finished_is_finished(tmp_path, monkeypatch):
    made = run(small(order="ic"), tmp_path, verbose=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(data, "digits", None)  # nothing is read any more
    assert run(small(order="relu-ic-conv"), tmp_path, verbose=0) == made
    with pytest.raises(
        ValueError,
        match=(
            r"This folder holds another run \(rate 0.05 there, 0.2 here, seed 0 there, 8 here\);"
            r" .*Received: "
        ),
    ):
        run(small(rate=0.2, seed=8), tmp_path, verbose=0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    lines = before["record.jsonl"].decode().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"The record of this finished run lacks epochs"):
        run(small(), tmp_path, verbose=0)
    (tmp_path / "record.jsonl").unlink()
    with pytest.raises(
        ValueError, match=r"There is a model.keras here, but not the record of its run"
    ):
        run(small(), tmp_path, verbose=0)


def stopped_after_an_epoch(folder, monkeypatch, **values):
    """A run with one of its epochs done."""
    with monkeypatch.context() as patch:
        save = saving.save_model

        def save_then_stop(model, path):
            save(model, path)
            raise KeyboardInterrupt

        patch.setattr(saving, "save_model", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            run(small(**values), folder, verbose=0)
    assert len(read(folder).epochs) == 1


def test_damage_is_refused_and_nothing_is_lost(tmp_path, monkeypatch):
    stopped_after_an_epoch(tmp_path, monkeypatch)
    path, sound = tmp_path / "checkpoint.keras", (tmp_path / "checkpoint.keras").read_bytes()
    record_before = (tmp_path / "record.jsonl").read_text()
    path.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(ValueError, match="This is no whole Keras model file"):
        run(small(), tmp_path, verbose=0)
    assert (tmp_path / "record.jsonl").read_text() == record_before
    path.write_bytes(sound)
    for damaged in ("{}\n", record_before.replace('"epoch": 1', '"epoch": 2')):
        (tmp_path / "record.jsonl").write_text(damaged)
        with pytest.raises(ValueError, match="of this record is damaged"):
            run(small(), tmp_path, verbose=0)
        assert (tmp_path / "record.jsonl").read_text() == damaged
    (tmp_path / "record.jsonl").write_text(record_before.splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match="has fewer epochs than its checkpoint"):
        run(small(), tmp_path, verbose=0)
    (tmp_path / "record.jsonl").write_text(record_before)
    assert run(small(), tmp_path, verbose=0).is_finished


def test_a_full_disk_stops_the_run_which_goes_on_later(tmp_path, monkeypatch):
    run(small(), tmp_path / "through", verbose=0)

    def append_half(folder, line):
        with open(folder / record.NAME, "a") as file:
            file.write(json.dumps(line)[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    stopped_after_an_epoch(tmp_path / "full", monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(record, "append", append_half)
        with pytest.raises(OSError, match="No space left"):
            run(small(), tmp_path / "full", verbose=0)
    assert len(read(tmp_path / "full").epochs) == 1
    run(small(), tmp_path / "full", verbose=0)
    assert epochs(tmp_path / "full") == epochs(tmp_path / "through")


def test_other_versions_are_said(tmp_path, monkeypatch):
    stopped_after_an_epoch(tmp_path, monkeypatch)
    path = tmp_path / "record.jsonl"
    path.write_text(path.read_text().replace(f'"keras": "{keras.__version__}"', '"keras": "3.0.0"'))
    with pytest.warns(UserWarning, match=r"This run was begun with other versions, .*3\.0\.0"):
        assert run(small(), tmp_path, verbose=0).is_finished


@pytest.mark.parametrize(("already", "size"), [(0, None), (1, None), (0, 16)])
def test_divergence_names_the_step_and_the_layer(tmp_path, monkeypatch, already, size):
    values = {
        "optimizer": "sgd",
        "schedule": "constant",
        "learning_rate": 0.01,
        "epochs": 3,
        "image_size": size,
    }
    if already:
        stopped_after_an_epoch(tmp_path, monkeypatch, **values)
    train, seen = data.training_dataset, []

    def with_one_bad_batch(x, y, *args, epoch=0, **kwargs):
        import tensorflow as tf

        seen.append(epoch)
        batches = train(x, y, *args, epoch=epoch, **kwargs).enumerate()
        step = tf.constant(1 + 3 * (already - epoch), tf.int64)  # the second of the next epoch
        return batches.map(
            lambda index, batch: (tf.where(index == step, 1e38, 1.0) * batch[0], batch[1])
        )

    monkeypatch.setattr(data, "training_dataset", with_one_bad_batch)
    # ReLU may hide that step's nan from the loss, but not from the weights.
    what = "the (outputs|weights) of (conv1|resized)"
    message = (
        rf"not finite any more at step [23] of epoch {already + 1}; what went first are {what}; .*"
        r" Received: learning_rate=0.01$"
    )
    with pytest.raises(ValueError, match=message):
        run(small(**values), tmp_path, verbose=0)
    assert seen == [already, already]
    assert len(read(tmp_path).epochs) == already


def test_lost_weights_are_named(tmp_path):
    values = {"optimizer": "sgd", "learning_rate": 1e38, "order": "usual", "weight_decay": 10.0}
    with pytest.raises(
        ValueError, match=r"at step 2 of epoch 1; what went first are the weights of conv1\w*; "
    ):
        run(small(**values), tmp_path, verbose=0)


def test_weights_lost_in_the_last_step_of_an_epoch(tmp_path):
    values = {
        "optimizer": "sgd",
        "learning_rate": 1e38,
        "order": "usual",
        "weight_decay": 10.0,
        "train_size": 32,
    }
    with pytest.raises(
        ValueError,
        match=(
            r"not finite any more after the last step of epoch 1; what went first are the weights"
            r" of conv1; "
        ),
    ):
        run(small(**values), tmp_path, verbose=0)
    assert read(tmp_path).epochs == []


@pytest.mark.parametrize("steps", [10, 1000])
def test_learning_rates(steps):
    def learning_rates(**values):
        model = network(small(**values), (8, 8, 1), 10)
        made = optimizer(small(**values), steps, model)
        schedule = made._learning_rate
        return np.array(
            [
                float(schedule(step)) if callable(schedule) else float(made.learning_rate)
                for step in range(steps)
            ]
        )

    expected = np.repeat([1e-2, 1e-3, 1e-4, 1e-5], np.array([4, 2, 2, 2]) * steps // 10)
    np.testing.assert_allclose(learning_rates(learning_rate=1e-2), expected, rtol=1e-5)
    np.testing.assert_allclose(learning_rates(schedule="constant"), 1e-3, rtol=1e-6)
    cosine = 1e-3 * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    np.testing.assert_allclose(learning_rates(schedule="cosine"), cosine, rtol=1e-3, atol=1e-8)
    cycle = learning_rates(schedule="one-cycle")
    assert (
        cycle[0] == pytest.approx(1e-3 / 25)
        and np.argmax(cycle) == round(0.3 * steps)
        and cycle.max() == pytest.approx(1e-3)
    )
    assert cycle[-1] < 0.06e-3 and np.all(np.diff(cycle)[round(0.3 * steps) :] < 0)


def test_one_cycle_is_saved_with_its_values():
    schedule = OneCycle(0.1, 20)
    again = OneCycle.from_config(schedule.get_config())
    assert [float(again(step)) for step in range(20)] == [
        float(schedule(step)) for step in range(20)
    ]


def test_decoupled_weight_decay_is_for_kernels_alone():
    configuration = small(decoupled_weight_decay=0.5, schedule="constant", learning_rate=0.1)
    model = network(configuration, (8, 8, 1), 10)
    made = optimizer(configuration, 10, model)
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    made.apply(
        [keras.ops.zeros_like(variable) for variable in model.trainable_variables],
        model.trainable_variables,
    )
    for variable, value in zip(model.trainable_variables, before, strict=True):
        factor = 0.95 if "kernel" in variable.name else 1.0
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), factor * value, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.2] * 20),
        ("anneal", np.repeat(0.2 * (1 - np.arange(10) / 9), 2)),
        ("grow", np.repeat(0.02 * np.arange(1, 11), 2)),
    ],
)
def test_rates_over_the_epochs(schedule, expected):
    configuration = small(rate=0.2, rate_schedule=schedule, epochs=20)
    model = network(configuration, (8, 8, 1), 10)
    model.compile("sgd")
    callback = RateSchedule(configuration, [0.2, 0.1, 0.0])
    callback.set_model(model)
    seen = []
    for epoch in range(20):
        callback.on_epoch_begin(epoch)
        seen.append([layer.rate for layer in ic_layers(model)])
    np.testing.assert_allclose(seen, np.outer(expected, [1, 0.5, 0]), atol=1e-12)


def test_a_change_of_the_rate_reaches_the_compiled_step(tmp_path):
    """With nothing learned, the training loss of an epoch tells the masks."""
    values = {
        "learning_rate": 1e-30,
        "schedule": "constant",
        "rate": 0.9,
        "rate_schedule": "anneal",
        "epochs": 2,
        "weight_decay": 0.0,
    }
    losses = run(small(**values), tmp_path / "anneal", verbose=0).values("loss")
    constant = run(
        small(**{**values, "rate_schedule": "constant"}), tmp_path / "constant", verbose=0
    ).values("loss")
    assert losses[0] == constant[0]
    assert losses[1] < 0.9 * constant[1]  # rate 0.4 instead of 0.9


def test_recalibrate_sets_the_statistics_of_the_training_images(tmp_path):
    made = run(small(recalibrate=True), tmp_path, verbose=0)
    assert made.recalibrated["val_loss"] != made.values("val_loss")[-1]
    model = saving.load_model(tmp_path / "model.keras")
    (x, _), (x_test, y_test) = data.digits()
    mean, std = data.channel_statistics(x[:70])
    assert model.evaluate((x_test - mean) / std, y_test, verbose=0)[1] == pytest.approx(
        made.recalibrated["val_accuracy"], abs=1e-6
    )
    below = keras.Model(model.input, model.get_layer("conv2_ic").input)(
        ((x[:70] - mean) / std).astype("float32")
    )
    np.testing.assert_allclose(
        model.get_layer("conv2_ic").moving_mean, np.mean(below, (0, 1, 2)), rtol=1e-4, atol=1e-5
    )


def test_callbacks_are_called(tmp_path):
    seen = []
    run(
        small(),
        tmp_path,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
        ],
        verbose=0,
    )
    assert seen == [0, 1]


def test_bad_input(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError,
        match=(
            r"`train_size` must be at most 1438, the number of training images. Received:"
            r" train_size=1439"
        ),
    ):
        run(small(train_size=1439), tmp_path / "run", verbose=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"The folder of a run must be a folder; .* Received: "):
        run(small(), tmp_path / "file", verbose=0)

    def missing(data_dir):
        raise data.MissingDataError(f"cifar100 is not in {data_dir}")

    monkeypatch.setattr(data, "cifar100", missing)
    with pytest.raises(data.MissingDataError, match="cifar100 is not in there"):
        run(Configuration(data="cifar100", epochs=1), tmp_path / "run", "there", verbose=0)
    # So that the right arguments find no trace of the wrong ones.
    assert not (tmp_path / "run").exists()


def test_real_cifar10(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    if not tfds.builder("cifar10").is_prepared():
        pytest.skip("CIFAR-10 is not prepared on this machine")
    train, (x_test, y_test) = data.cifar10()
    assert (train[0].shape, x_test.shape) == ((50000, 32, 32, 3), (10000, 32, 32, 3))
    assert np.bincount(train[1]).tolist() == [5000] * 10
    monkeypatch.setattr(data, "cifar10", lambda data_dir: (train, (x_test[:1000], y_test[:1000])))
    made = run(
        Configuration(model="resnet8", train_size=128, epochs=1), pathlib.Path(tmp_path), verbose=0
    )
    assert 0.02 < made.values("val_accuracy")[-1] < 0.4  # after two steps
