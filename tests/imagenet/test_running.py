"""Whole runs on images that are learned in seconds."""

import json
import logging

import keras
import numpy as np
import pytest

from keras_ic import distribution, imagenet, saving
from tests.distribution.breaking import Broken
from tests.imagenet.conftest import write_shard
from tests.imagenet.test_sources import SMALL

pytestmark = pytest.mark.tensorflow_only


def recipe(data, **changes):
    values = {
        "model": "Tiny",
        "image_size": 32,
        "batch": 8,
        "epochs": 3,
        "learning_rate": 3.2,
        "label_smoothing": 0.1,
        "weight_decay": 1e-4,
    }
    return imagenet.named("small", data=str(data), **{**values, **changes})


def one():
    return distribution.strategy("one")


def weights(folder):
    return saving.load_model(folder / "model.keras").get_weights()


def test_it_learns_and_leaves_a_record(shards, tiny, tmp_path, capsys):
    lines = imagenet.run(recipe(shards, epochs=8), tmp_path, one(), verbose=2)
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    # Chance is 0.25.
    assert (
        lines[-1]["val_accuracy"] > 0.7 and lines[-1]["val_top5"] == 1 and lines[-1]["damaged"] == 0
    )
    assert (
        lines[-1]["images_per_second"] > 0
        and 0 <= lines[-1]["wait_seconds"] <= lines[-1]["step_seconds"]
    )
    assert "images/s; a step" in capsys.readouterr().out
    head = json.loads((tmp_path / "record.jsonl").read_text().splitlines()[0])
    assert (
        head["steps"] == 7
        and head["images"] == {"train": 62, "validation": 19}
        and head["configuration"]["model"] == "Tiny"
        and head["seed"] == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras", "record.jsonl"]
    # The record's figures are those of the saved model on all test images.
    model = saving.load_model(tmp_path / "model.keras")
    test = imagenet.validation(imagenet.find(shards, "validation"), 19, 32)
    result = model.evaluate(test, verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx(lines[-1]["val_accuracy"]) and result[
        "cross_entropy"
    ] == pytest.approx(lines[-1]["val_loss"], rel=1e-4)
    # Again it has nothing to do.
    assert imagenet.run(recipe(shards, epochs=8), tmp_path, one()) == lines


def test_broken_and_resumed_equals_unbroken_under_mirrored(shards, tiny, tmp_path, strategy):
    """With a moving average of the weights, two parts of each batch, and dropout; broken within the
    second epoch.
    """
    settings = recipe(shards, ema=0.9, accumulate=2, epochs=2)
    whole = imagenet.run(settings, tmp_path / "whole", strategy, verbose=0)
    with pytest.raises(InterruptedError):
        imagenet.run(
            settings,
            tmp_path / "broken",
            strategy,
            backup_steps=2,
            callbacks=[Broken(11)],
            verbose=0,
        )
    lines = imagenet.run(settings, tmp_path / "broken", strategy, backup_steps=2, verbose=0)
    for a, b in zip(weights(tmp_path / "broken"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(a, b)
    for ours, theirs in zip(lines, whole, strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)


def test_two_replicas_equal_one_device(shards, tiny, tmp_path, strategy):
    settings = recipe(shards, rate=0.0, synchronized=True, epochs=2)
    alone, both = (
        imagenet.run(settings, tmp_path / name, where, verbose=0)
        for name, where in (("alone", one()), ("both", strategy))
    )
    for ours, theirs in zip(both, alone, strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_throughput(tiny, dtype):
    result = imagenet.throughput(recipe("none", dtype=dtype), one(), steps=4, classes=4)
    assert result["images_per_second"] == pytest.approx(8 / result["step_seconds"])


def test_damaged_images_are_passed_over_and_too_many_are_not(shards, tiny, tmp_path, caplog):
    for split in ("train", "validation"):
        for path in shards.glob(f"{split}-*"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "label.labels.txt").write_bytes((shards / "label.labels.txt").read_bytes())
    cut = tmp_path / "train-00001-of-00004"
    cut.write_bytes(cut.read_bytes()[:-10])
    with caplog.at_level(logging.WARNING):
        lines = imagenet.run(recipe(tmp_path, epochs=2), tmp_path / "run", one(), verbose=0)
    assert (
        lines[-1]["damaged"] == 1
        and f"shard cut off within a record, its last images are left out: {cut}" in caplog.text
    )
    write_shard(tmp_path / "train-00002-of-00004", [(b"x", 0)] * 30)
    # Images are decoded ahead, so that the 21st is noticed when up to all 31 have been met.
    message = (
        r"^(2[1-9]|3[01]) images are damaged, more than the 20 that are passed over; mend them\."
        r" Received: "
    )
    with pytest.raises(imagenet.DamagedDataError, match=message):
        imagenet.run(recipe(tmp_path, epochs=2), tmp_path / "run2", one(), verbose=0)


def test_bad_folders_and_numbers(shards, folders, tiny, tmp_path):
    with pytest.raises(ValueError, match="Received: 62 images, batch=64"):
        imagenet.run(recipe(shards, batch=64), tmp_path, one())
    (tmp_path / "run").mkdir()
    for name in ("backup.keras", "model.keras"):
        (tmp_path / "run" / name).touch()
        with pytest.raises(ValueError, match=f"There is a {name} here, but not the record"):
            imagenet.run(recipe(shards), tmp_path / "run", one())
        (tmp_path / "run" / name).unlink()
    imagenet.run(recipe(shards, epochs=2), tmp_path / "run", one(), verbose=0)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=r"another run \(rate 0.05 there, 0.1 here\)"):
        imagenet.run(recipe(shards, epochs=2, rate=0.1), tmp_path / "run", one())
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    (tmp_path / "run" / "record.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match="This record is damaged"):
        imagenet.run(recipe(shards), tmp_path / "run", one())
    with pytest.raises(ValueError, match="must be a folder"):
        imagenet.run(recipe(shards), tmp_path / "run" / "record.jsonl", one())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(folders / "train")
    for name in ("n01", "n05"):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        (tmp_path / "data" / "val" / name / "x.jpeg").touch()
    with pytest.raises(
        ValueError, match=r"same classes\. Received: 4 and 2, n02, n03, n04 in one alone"
    ):
        imagenet.run(recipe(tmp_path / "data"), tmp_path / "other", one())


def test_a_record_that_lacks_epochs_is_refused_and_nothing_lost(shards, tiny, tmp_path):
    settings = recipe(shards, epochs=2)
    imagenet.run(settings, tmp_path / "run", one(), verbose=0)
    record = tmp_path / "run" / "record.jsonl"
    whole, model = record.read_text(), (tmp_path / "run" / "model.keras").read_bytes()
    record.write_text("".join(whole.splitlines(True)[:-1]))
    with pytest.raises(ValueError, match="The record of this finished run lacks epochs"):
        imagenet.run(settings, tmp_path / "run", one(), verbose=0)
    assert (tmp_path / "run" / "model.keras").read_bytes() == model
    with pytest.raises(InterruptedError):
        imagenet.run(settings, tmp_path / "broken", one(), callbacks=[Broken(9)], verbose=0)
    record = tmp_path / "broken" / "record.jsonl"
    record.write_text(record.read_text().splitlines(True)[0])
    with pytest.raises(ValueError, match="The record of this run with a backup lacks epochs"):
        imagenet.run(settings, tmp_path / "broken", one(), verbose=0)


class Asks(keras.callbacks.Callback):
    """Asks for a stop before a step, counted from the first of the run."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            self.model.distribution.stop_wanted = True


def test_a_stop_in_the_last_step_of_an_epoch_goes_on(shards, tiny, tmp_path):
    """Seven steps an epoch; the stop is agreed on a step after it is asked for."""
    settings = recipe(shards, epochs=2)
    whole = imagenet.run(settings, tmp_path / "whole", one(), verbose=0)
    with pytest.raises(KeyboardInterrupt):
        imagenet.run(settings, tmp_path / "stopped", one(), callbacks=[Asks(5)], verbose=0)
    lines = imagenet.run(settings, tmp_path / "stopped", one(), verbose=0)
    assert [(line["epoch"], line["val_loss"]) for line in lines] == [
        (line["epoch"], line["val_loss"]) for line in whole
    ]
    for a, b in zip(weights(tmp_path / "stopped"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_epoch_of_one_step_has_a_time_and_no_throughput(shards, tiny, tmp_path):
    (line,) = imagenet.run(recipe(shards, batch=62, epochs=1), tmp_path, one(), verbose=0)
    assert line["images_per_second"] is None and 1e-3 < line["step_seconds"] <= line["seconds"]


@pytest.mark.slow(reason="trains on real images")
@pytest.mark.skipif(
    not SMALL.is_dir(), reason="imagenet2012 is not in the folder of tensorflow-datasets"
)
def test_the_real_set_is_learned_above_chance(tiny, tmp_path):
    classes = {
        int(label)
        for _, labels, _ in imagenet.validation(
            imagenet.find("imagenet2012", "validation"), 100, 32
        )
        for label in labels.numpy().argmax(1)
    }
    if len(classes) > 20:
        pytest.skip("this is the whole of ImageNet, which takes days")
    lines = imagenet.run(
        recipe("imagenet2012", batch=32, epochs=4, learning_rate=0.8), tmp_path, one(), verbose=0
    )
    assert lines[-1]["val_accuracy"] > 2 / len(classes)


def test_only_on_tensorflow(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(NotImplementedError, match="Received: backend 'jax'"):
        imagenet.run(imagenet.Recipe(), "nowhere")
