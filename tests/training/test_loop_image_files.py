"""Whole runs on image files that are learned in seconds."""

import logging
import os
import signal

import keras
import pytest

from keras_ic import saving
from keras_ic.training import datasets, grid, loop, preset, read, run
from tests.distribution.breaking import Broken
from tests.training.comparing import assert_same_run, epochs
from tests.training.conftest import write_shard
from tests.training.datasets.test_image_sources import SMALL
from tests.training.tiny import tiny as tiny_network

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


def config(data, **changes):
    """Seven steps an epoch of the shards."""
    values = {
        "model": "Tiny",
        "image_size": 32,
        "batch": 8,
        "epochs": 2,
        "learning_rate": 3.2,
        "label_smoothing": 0.1,
        "recalibrate": "off",
    }
    return preset("small", data=str(data), **{**values, **changes})


def averaged(data):
    """With everything that has a state."""
    return config(data, epochs=4, ema=0.5, recalibrate="each")


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The folder of an unbroken run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "Tiny", tiny_network, raising=False)
        run(averaged(shards), folder, verbose=0)
    return folder


def test_it_learns_and_leaves_a_record(shards, whole):
    record = read(whole)
    assert [line["epoch"] for line in record.epochs] == [1, 2, 3, 4]
    last = record.epochs[-1]
    assert last["val_accuracy"] > 0.7  # chance is 0.25
    assert last["damaged"] == 0 and 0 < last["step_seconds"] <= last["seconds"]
    assert record.head["steps"] == 7 and record.head["images"] == {"train": 62, "validation": 19}
    assert record.head["rewritten"] and record.config == averaged(shards)
    assert sorted(path.name for path in whole.iterdir()) == ["model.keras", "record.jsonl"]
    # The record's figures are those of the saved model on all test images.
    model = saving.load_model(whole / "model.keras")
    images = datasets.find_images(shards, "validation")
    result = model.evaluate(datasets.validation_images(images, 19, 32), verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx(last["val_accuracy"])
    assert result["cross_entropy"] == pytest.approx(last["val_loss"], rel=1e-4)
    assert run(averaged(shards), whole) == record  # again it has nothing to do


@pytest.mark.parametrize(
    "step", [pytest.param(4, marks=pytest.mark.slow(reason="the last epoch is harder")), 25]
)
def test_broken_and_resumed_equals_unbroken(shards, tiny, tmp_path, whole, step):
    """Within the first epoch or the last, between two checkpoints; plain `fit`."""
    settings, often = averaged(shards), {"checkpoint_steps": 3, "verbose": 0}
    with pytest.raises(InterruptedError):
        run(settings, tmp_path, callbacks=[Broken(step)], **often)
    run(settings, tmp_path, **often)
    assert_same_run(tmp_path, whole, rtol=1e-5)


def test_broken_after_the_last_epoch(shards, tiny, tmp_path, whole, monkeypatch):
    """The average of the weights is what is kept, whether the end of `fit` is seen or not."""

    def broken(*arguments):
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(loop, "_finish", broken)
        run(averaged(shards), tmp_path, verbose=0)
    run(averaged(shards), tmp_path, verbose=0)
    assert_same_run(tmp_path, whole)


@pytest.mark.slow(reason="plain `fit` and two workers go on in faster tests")
@pytest.mark.tensorflow_only
def test_broken_and_resumed_equals_unbroken_under_mirrored(shards, tiny, tmp_path, strategy):
    """With a moving average of the weights, two parts of each batch, and dropout."""
    settings = config(shards, ema=0.9, accumulate=2)
    run(settings, tmp_path / "whole", strategy, verbose=0)
    with pytest.raises(InterruptedError):
        run(
            settings,
            tmp_path / "broken",
            strategy,
            checkpoint_steps=2,
            callbacks=[Broken(11)],
            verbose=0,
        )
    record = run(settings, tmp_path / "broken", strategy, checkpoint_steps=2, verbose=0)
    assert_same_run(tmp_path / "broken", tmp_path / "whole", rtol=1e-5)
    assert record.epochs[-1]["wait_seconds"] >= 0 and record.head["replicas"] == 2


@pytest.mark.tensorflow_only
def test_two_replicas_equal_one_device(shards, tiny, tmp_path, strategy):
    settings = config(shards, rate=0.0, synchronized=True, learning_rate=0.32)
    alone, both = (
        run(settings, tmp_path / name, where, verbose=0)
        for name, where in (("alone", None), ("both", strategy))
    )
    for name in METRICS:
        assert both.values(name) == pytest.approx(alone.values(name), rel=2e-3, abs=1e-6)
    assert both.values("wait_seconds")[0] >= 0 and both.head["replicas"] == 2


def test_a_grid_and_seeds(shards, tiny, tmp_path):
    """Two seeds of two orders, one of them without a rate; each run is its own."""
    options = config(shards, epochs=1).to_dict()
    varied = {"order": ["usual", "ic"], "rate": [0.05, 0.1], "seed": [0, 1]}
    runs = grid("small", **{**options, **varied})
    assert [each.order for each in runs] == ["conv-bn-relu", "relu-ic-conv", "relu-ic-conv"] * 2
    one, two = (run(runs[index], tmp_path / str(index), verbose=0) for index in (0, 3))
    assert one.values("loss") != two.values("loss") and not one.head["rewritten"]


def test_a_rate_that_changes_and_an_order_of_units(shards, tmp_path):
    """Of a network of this package, in whose pre-activation order no IC layer is."""
    changes = {"model": "small", "epochs": 1}
    run(config(shards, order="bn-relu-conv", **changes), tmp_path / "order", verbose=0)
    model = saving.load_model(tmp_path / "order" / "model.keras").get_layer("small")
    kinds = [type(layer).__name__ for layer in model.layers]
    first = kinds.index("Conv2D", kinds.index("Conv2D") + 1)
    assert kinds[first - 2 : first] == ["BatchNormalization", "ReLU"]
    run(config(shards, rate=0.2, rate_schedule="grow", **changes), tmp_path / "rate", verbose=0)
    model = saving.load_model(tmp_path / "rate" / "model.keras")
    assert {round(layer.rate, 6) for layer in loop.ic_layers(model)} == {0.02}


def test_statistics_before_each_validation_or_at_the_end(shards, tiny, tmp_path):
    end, each = (
        run(config(shards, recalibrate=when), tmp_path / when, verbose=0)
        for when in ("end", "each")
    )
    assert end.values("loss") == each.values("loss")  # training is the same
    lagging = end.values("val_loss")
    assert end.recalibrated["val_loss"] != pytest.approx(lagging[-1], rel=1e-3)
    assert all(abs(a - b) > 1e-3 for a, b in zip(each.values("val_loss"), lagging, strict=True))


def test_damaged_images_are_passed_over_and_too_many_are_not(shards, tiny, tmp_path, caplog):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    cut = tmp_path / "train-00001-of-00004"
    cut.write_bytes(cut.read_bytes()[:-10])
    with caplog.at_level(logging.WARNING):
        record = run(config(tmp_path), tmp_path / "run", verbose=0)
    assert record.values("damaged")[-1] == 1
    message = f"shard cut off within a record, its last images are left out: {cut}"
    assert message in caplog.text
    write_shard(tmp_path / "train-00002-of-00004", [(b"x", 0)] * 30)
    # Images are decoded ahead, so that the 21st is noticed when up to all 31 have been met.
    message = (
        r"^(2[1-9]|3[01]) images are damaged, more than the 20 that are passed over; repair them\."
        r" Received: "
    )
    with pytest.raises(datasets.DamagedDataError, match=message):
        run(config(tmp_path), tmp_path / "run2", verbose=0)


def test_bad_folders_and_numbers(shards, folders, tiny, tmp_path):
    with pytest.raises(ValueError, match="Received: 62 images, batch=64"):
        run(config(shards, batch=64), tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("checkpoint.keras", "model.keras"):
        (tmp_path / "run" / name).touch()
        with pytest.raises(ValueError, match=f"There is a {name} here, but not the record"):
            run(config(shards), tmp_path / "run")
        (tmp_path / "run" / name).unlink()
    run(config(shards, epochs=1), tmp_path / "run", verbose=0)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=r"another run \(rate 0.05 there, 0.1 here\)"):
        run(config(shards, epochs=1, rate=0.1), tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


class Signalled(keras.callbacks.Callback):
    """Gets a SIGTERM before a step, counted from the first of the run."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "step",
    [
        3,
        pytest.param(6, marks=pytest.mark.slow(reason="a stop within an epoch is the faster test")),
    ],
)
def test_a_signal_stops_after_a_step(shards, tiny, tmp_path, whole, step):
    """Of seven steps an epoch. In the last one, the epoch comes to its end first."""
    with pytest.raises(KeyboardInterrupt):
        run(averaged(shards), tmp_path, callbacks=[Signalled(step)], verbose=0)
    assert len(epochs(tmp_path)) == (step == 6)
    run(averaged(shards), tmp_path, verbose=0)
    assert_same_run(tmp_path, whole, rtol=1e-5)


@pytest.mark.slow(reason="small sets of made images are learned faster")
@pytest.mark.skipif(
    not SMALL.is_dir(), reason="imagenet2012 is not in the folder of tensorflow-datasets"
)
def test_the_real_set_is_learned_above_chance(tiny, tmp_path):
    images = datasets.find_images("imagenet2012", "validation")
    classes = {
        int(label)
        for _, labels, _ in datasets.validation_images(images, 100, 32)
        for label in labels.numpy().argmax(1)
    }
    if len(classes) > 20:
        pytest.skip("this is the whole of ImageNet, which takes days")
    settings = config("imagenet2012", batch=32, epochs=4, learning_rate=0.8)
    record = run(settings, tmp_path, verbose=0)
    assert record.values("val_accuracy")[-1] > 2 / len(classes)
    assert record.values("val_top5")[-1] >= record.values("val_accuracy")[-1]
