"""Whole runs on digits; those on image files are in test_loop_image_files.py."""

import errno
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ic import saving
from keras_ic.training import TrainingConfig, datasets, loop, read, record, run
from keras_ic.training.datasets import in_memory
from keras_ic.utils.folder_lock import folder_lock

pytestmark = pytest.mark.tensorflow_only  # the images come through tf.data
# So that the last batch is a small one. A network of one convolution is compiled in a second.
SMALL = {"data": "digits", "model": "small", "batch": 32, "train_size": 70, "recalibrate": "off"}

# Runs a configuration once through and once until it is killed at a step.
KILLED = """
import json, os, pathlib, signal, sys
import keras
from keras_ic.training import TrainingConfig, run

what, folder, values = sys.argv[1], pathlib.Path(sys.argv[2]), json.loads(sys.argv[3])


class Kill(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 7:
            os.kill(os.getpid(), signal.SIGKILL)


if what == "through":
    run(TrainingConfig(**values), folder / "through", checkpoint_steps=2, verbose=0)
callbacks = [Kill()] if what == "through" else []
run(TrainingConfig(**values), folder / "broken", checkpoint_steps=2, callbacks=callbacks, verbose=0)
"""


class Broken(keras.callbacks.Callback):
    """Breaks off at the end of a step, counted from the first of the run."""

    def __init__(self, step, error=InterruptedError):
        super().__init__()
        self.step, self.error = step, error

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            raise self.error


def small(**values):
    return TrainingConfig(**{**SMALL, "epochs": 2, **values})


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


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_the_same_run(one, other):
    assert epochs(one) == epochs(other)
    assert read(one).recalibrated == read(other).recalibrated
    for a, b in zip(weights(one / "model.keras"), weights(other / "model.keras"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """A run of two epochs that nothing has broken."""
    folder = tmp_path_factory.mktemp("through")
    run(small(), folder, verbose=0)
    return folder


def test_a_part_of_the_training_images_is_judged_on(tmp_path):
    made = run(small(validation=0.2, epochs=1), tmp_path, verbose=0)
    (kept, _), (judged, y_judged) = in_memory.images(small(validation=0.2))
    model = saving.load_model(tmp_path / "model.keras")
    batches = datasets.test_dataset(judged, y_judged, 250, *datasets.channel_statistics(kept))
    result = model.evaluate(batches, verbose=0, return_dict=True)
    assert made.values("val_accuracy")[0] == pytest.approx(result["accuracy"])
    assert made.head["images"] == {"train": 56, "validation": 14}


@pytest.mark.parametrize(
    "values",
    [
        {"rate": 0.1, "rate_schedule": "grow", "recalibrate": "each"},
        pytest.param(
            {
                "order": "conv-bn-relu",
                "dropout": 0.2,
                "schedule": "one-cycle",
                "decoupled_weight_decay": 0.1,
                "augment": True,
            },
            marks=pytest.mark.slow(reason="the same by another recipe"),
        ),
        pytest.param(
            {
                "optimizer": "sgd",
                "schedule": "constant",
                "order": "conv-bn-relu-ic",
                "recalibrate": "end",
            },
            marks=pytest.mark.slow(reason="the same by another recipe"),
        ),
    ],
    ids=["ic", "baseline", "sgd"],
)
def test_killed_within_an_epoch_and_resumed_is_bit_for_bit_unbroken(values, tmp_path):
    values = json.dumps({**SMALL, "epochs": 4, **values})

    def start(what):
        command = [sys.executable, "-c", KILLED, what, str(tmp_path), values]
        return subprocess.run(command, capture_output=True, text=True)

    first = start("through")
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert len(epochs(tmp_path / "broken")) == 2
    assert {"checkpoint.keras", "record.jsonl"} <= set(files(tmp_path / "broken"))
    second = start("go on")
    assert second.returncode == 0, second.stderr
    assert_the_same_run(tmp_path / "broken", tmp_path / "through")
    assert files(tmp_path / "broken") == ["model.keras", "record.jsonl"]


def test_an_average_of_the_weights_parts_of_a_batch_and_smoothing_are_resumed(tmp_path):
    config = small(ema=0.9, accumulate=2, label_smoothing=0.1, epochs=2)
    run(config, tmp_path / "through", verbose=0)
    with pytest.raises(InterruptedError):
        run(config, tmp_path / "broken", checkpoint_steps=1, callbacks=[Broken(5)], verbose=0)
    run(config, tmp_path / "broken", verbose=0)
    assert_the_same_run(tmp_path / "broken", tmp_path / "through")


def test_two_replicas_equal_one_device(tmp_path, strategy):
    """The last batch, of six images, is shared out too."""
    config = small(rate=0.0, synchronized=True, epochs=1)
    one, two = (
        run(config, tmp_path / name, where, verbose=0)
        for name, where in (("one", None), ("two", strategy))
    )
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert two.values(name) == pytest.approx(one.values(name), rel=1e-4)
    assert (one.head["replicas"], two.head["replicas"]) == (1, 2)
    assert two.epochs[0]["wait_seconds"] >= 0


def test_what_a_run_leaves(through):
    made = read(through)
    assert made.is_finished and made.config == small()
    head, *lines = map(json.loads, (through / "record.jsonl").read_text().splitlines())
    assert head["schema"] == 1 and head["seed"] == 0 and "seed" not in head["configuration"]
    assert head["steps"] == 3 and head["rewritten"] is False
    assert {"keras_ic", "keras", "tensorflow", "numpy", "python"} <= set(head["versions"])
    assert [list(line)[:6] for line in lines] == [
        ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    ] * 2
    assert all(0 < line["step_seconds"] < line["seconds"] for line in lines)
    model = saving.load_model(through / "model.keras")
    assert head["parameters"] == sum(np.prod(each.shape) for each in model.trainable_variables)
    (x, _), (x_test, y_test) = datasets.digits()
    mean, std = datasets.channel_statistics(x[:70])
    result = model.evaluate((x_test - mean) / std, y_test, verbose=0, return_dict=True)
    assert result["cross_entropy"] == pytest.approx(lines[-1]["val_loss"], rel=1e-5)
    assert result["accuracy"] == pytest.approx(lines[-1]["val_accuracy"], rel=1e-5)


def test_finished_is_finished(through, tmp_path, monkeypatch):
    for path in through.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(in_memory, "digits", None)  # nothing is read any more
    assert run(small(order="relu-ic-conv"), tmp_path, verbose=0).epochs == read(through).epochs
    other = r"another run \(rate 0.05 there, 0.2 here, seed 0 there, 8 here\); .*Received: "
    with pytest.raises(ValueError, match=other):
        run(small(rate=0.2, seed=8), tmp_path, verbose=0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    lines = before["record.jsonl"].decode().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"The record of this finished run lacks epochs"):
        run(small(), tmp_path, verbose=0)
    (tmp_path / "record.jsonl").unlink()
    with pytest.raises(ValueError, match=r"There is a model.keras here, but not the record"):
        run(small(), tmp_path, verbose=0)


def stopped_after_an_epoch(folder, **values):
    with pytest.raises(InterruptedError):
        run(small(**values), folder, callbacks=[Broken(4)], verbose=0)
    assert len(read(folder).epochs) == 1


def test_damage_is_refused_and_nothing_is_lost(tmp_path, through):
    stopped_after_an_epoch(tmp_path)
    path, sound = tmp_path / "checkpoint.keras", (tmp_path / "checkpoint.keras").read_bytes()
    record_before = (tmp_path / "record.jsonl").read_text()
    path.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(ValueError, match="This is not a complete checkpoint"):
        run(small(), tmp_path, verbose=0)
    assert (tmp_path / "record.jsonl").read_text() == record_before
    path.write_bytes(sound)
    for damaged in ("{}\n", record_before.replace('"epoch": 1', '"epoch": 2')):
        (tmp_path / "record.jsonl").write_text(damaged)
        with pytest.raises(ValueError, match="of this file is damaged"):
            run(small(), tmp_path, verbose=0)
        assert (tmp_path / "record.jsonl").read_text() == damaged
    (tmp_path / "record.jsonl").write_text(record_before.splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match="The record of this run with a checkpoint lacks epochs"):
        run(small(), tmp_path, verbose=0)
    (tmp_path / "record.jsonl").write_text(record_before)
    run(small(), tmp_path, verbose=0)
    assert epochs(tmp_path) == epochs(through)


def test_a_full_disk_stops_the_run_which_goes_on_later(tmp_path, through, monkeypatch):
    def append_half(folder, line):
        with open(folder / record.NAME, "a") as file:
            file.write(json.dumps(line)[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    stopped_after_an_epoch(tmp_path / "full")
    with monkeypatch.context() as patch:
        patch.setattr(record, "append", append_half)
        with pytest.raises(OSError, match="No space left"):
            run(small(), tmp_path / "full", verbose=0)
    assert len(read(tmp_path / "full").epochs) == 1
    run(small(), tmp_path / "full", verbose=0)
    assert epochs(tmp_path / "full") == epochs(through)


def test_other_versions_are_kept_from_their_epoch_on(tmp_path):
    stopped_after_an_epoch(tmp_path)
    path = tmp_path / "record.jsonl"
    path.write_text(path.read_text().replace(f'"keras": "{keras.__version__}"', '"keras": "3.0.0"'))
    head = run(small(), tmp_path, verbose=0).head
    assert head["versions"]["keras"] == "3.0.0"
    (resumed,) = head["resumed"]
    assert resumed["epoch"] == 2 and resumed["versions"]["keras"] == keras.__version__


def test_another_process_has_the_folder(tmp_path):
    with folder_lock(tmp_path / "run"):
        with pytest.raises(ValueError, match=rf"process {os.getpid()} on .* Received: "):
            run(small(), tmp_path / "run", verbose=0)
        assert files(tmp_path / "run") == [".lock"]


def test_divergence_names_the_step(tmp_path):
    values = {"optimizer": "sgd", "learning_rate": 1e38, "weight_decay": 10.0}
    message = r"not finite any more at step 2 of epoch 1; .* Received: learning_rate=1e\+38"
    with pytest.raises(ValueError, match=message):
        run(small(order="conv-bn-relu", **values), tmp_path / "a", verbose=0)
    # The last step of an epoch loses the weights without a sign in its own loss.
    message = "not finite any more after the last step of epoch 1"
    with pytest.raises(ValueError, match=message):
        run(small(order="conv-bn-relu", train_size=32, **values), tmp_path / "b", verbose=0)
    assert read(tmp_path / "b").epochs == []


def test_a_change_of_the_rate_reaches_the_compiled_step(tmp_path):
    """With nothing learned, the training loss of an epoch tells the masks."""
    values = {"learning_rate": 1e-30, "schedule": "constant", "rate": 0.9, "weight_decay": 0.0}
    anneal, constant = (
        run(small(**values, rate_schedule=schedule), tmp_path / schedule, verbose=0).values("loss")
        for schedule in ("anneal", "constant")
    )
    assert anneal[0] == constant[0]
    assert anneal[1] < 0.9 * constant[1]  # rate 0.4 instead of 0.9


def test_recalibrate_sets_the_statistics_of_the_training_images(tmp_path):
    made = run(small(recalibrate="end", epochs=1), tmp_path, verbose=0)
    assert made.recalibrated["val_loss"] != made.values("val_loss")[-1]
    model = saving.load_model(tmp_path / "model.keras")
    (x, _), (x_test, y_test) = datasets.digits()
    mean, std = datasets.channel_statistics(x[:70])
    result = model.evaluate((x_test - mean) / std, y_test, verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx(made.recalibrated["val_accuracy"], abs=1e-6)
    before = keras.Model(model.input, model.get_layer("conv2_ic").input)(
        ((x[:70] - mean) / std).astype("float32")
    )
    np.testing.assert_allclose(
        model.get_layer("conv2_ic").moving_mean, np.mean(before, (0, 1, 2)), rtol=1e-4, atol=1e-5
    )


def test_recalibrated_before_each_validation(tmp_path, through):
    made = run(small(recalibrate="each"), tmp_path, verbose=0)
    assert made.values("loss") == pytest.approx(read(through).values("loss"), rel=1e-3)
    assert made.values("val_loss")[0] != pytest.approx(
        read(through).values("val_loss")[0], rel=0.01
    )
    model = saving.load_model(tmp_path / "model.keras")
    (x, _), (x_test, y_test) = datasets.digits()
    mean, std = datasets.channel_statistics(x[:70])
    result = model.evaluate((x_test - mean) / std, y_test, verbose=0, return_dict=True)
    assert result["cross_entropy"] == pytest.approx(made.values("val_loss")[-1], rel=1e-5)


def test_a_stop_that_is_asked_for_comes_after_a_step_with_everything_saved(tmp_path, through):
    class Signal(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 4:
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)  # a second one changes nothing

    with pytest.raises(KeyboardInterrupt):
        run(small(), tmp_path, callbacks=[Signal()], verbose=0)
    assert files(tmp_path) == ["checkpoint.keras", "record.jsonl"]
    assert loop.CheckpointCallback(tmp_path / loop.CHECKPOINT).place() == (1, 2)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    run(small(), tmp_path, verbose=0)
    assert epochs(tmp_path) == epochs(through)


def test_bad_input(tmp_path, monkeypatch):
    message = r"`train_size` must be at most 1438, .* Received: train_size=1439"
    with pytest.raises(ValueError, match=message):
        run(small(train_size=1439), tmp_path / "run", verbose=0)
    for share in (0.001, 0.999):
        with pytest.raises(ValueError, match="`validation` must leave"):
            run(small(validation=share), tmp_path / "run", verbose=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"The folder of a run must be a folder; .* Received: "):
        run(small(), tmp_path / "file", verbose=0)

    def missing(name, data_dir):
        raise datasets.MissingDataError(f"{name} is not in {data_dir}")

    monkeypatch.setattr(in_memory, "from_tfds", missing)
    with pytest.raises(datasets.MissingDataError, match="cifar100 is not in there"):
        run(TrainingConfig(data="cifar100"), tmp_path / "run", data_dir="there", verbose=0)
    # So that the right arguments find no trace of the wrong ones.
    assert not (tmp_path / "run").exists()


def test_real_cifar10(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    if not tfds.builder("cifar10").is_prepared():
        pytest.skip("CIFAR-10 is not prepared on this machine")
    train, (x_test, y_test) = datasets.cifar10()
    assert (train[0].shape, x_test.shape) == ((50000, 32, 32, 3), (10000, 32, 32, 3))
    assert np.bincount(train[1]).tolist() == [5000] * 10
    monkeypatch.setattr(
        in_memory, "_loaded", lambda name, data_dir: (train, (x_test[:1000], y_test[:1000]))
    )
    config = TrainingConfig(model="resnet8", train_size=128, epochs=1)
    made = run(config, tmp_path, verbose=0)
    assert 0.02 < made.values("val_accuracy")[-1] < 0.5  # after two steps


def test_strategies_are_for_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(NotImplementedError, match="Received: backend 'jax' with accumulate=2"):
        run(small(accumulate=2), tmp_path)
