"""Whole runs on image files that are learned in seconds."""

import json
import logging

import keras
import pytest

from keras_ic import distribution, saving
from keras_ic.training import datasets, grid, loop, preset, run
from tests.distribution.breaking import Broken
from tests.training.comparing import assert_same_run, epochs
from tests.training.conftest import write_shard
from tests.training.datasets.test_image_sources import SMALL

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
    }
    return preset("small", data=str(data), **{**values, **changes})


def test_it_learns_and_leaves_a_record(shards, tiny, tmp_path):
    record = run(config(shards, epochs=6), tmp_path, verbose=0)
    assert [line["epoch"] for line in record.epochs] == list(range(1, 7))
    last = record.epochs[-1]
    assert last["val_accuracy"] > 0.7  # chance is 0.25
    assert last["damaged"] == 0 and 0 < last["step_seconds"] <= last["seconds"]
    head = json.loads((tmp_path / "record.jsonl").read_text().splitlines()[0])
    assert head["steps"] == 7 and head["images"] == {"train": 62, "validation": 19}
    assert head["configuration"]["model"] == "Tiny" and head["seed"] == 0 and head["rewritten"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras", "record.jsonl"]
    # The record's figures are those of the saved model on all test images.
    model = saving.load_model(tmp_path / "model.keras")
    images = datasets.find_images(shards, "validation")
    result = model.evaluate(datasets.validation_images(images, 19, 32), verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx(last["val_accuracy"])
    assert result["cross_entropy"] == pytest.approx(last["val_loss"], rel=1e-4)
    # Again it has nothing to do.
    assert run(config(shards, epochs=6), tmp_path) == record


@pytest.mark.parametrize("step", [4, 11])
def test_broken_and_resumed_equals_unbroken(shards, tiny, tmp_path, step):
    """Within the first epoch or the second, between two checkpoints; plain `fit`."""
    settings = config(shards, ema=0.9)
    run(settings, tmp_path / "whole", verbose=0)
    with pytest.raises(InterruptedError):
        run(
            settings,
            tmp_path / "broken",
            checkpoint_steps=3,
            callbacks=[Broken(step)],
            verbose=0,
        )
    run(settings, tmp_path / "broken", checkpoint_steps=3, verbose=0)
    assert_same_run(tmp_path / "broken", tmp_path / "whole", rtol=1e-5)


def test_broken_after_the_last_epoch(shards, tiny, tmp_path, monkeypatch):
    """The average of the weights is what is kept, whether the end of `fit` is seen or not."""
    settings = config(shards, ema=0.9)
    run(settings, tmp_path / "whole", verbose=0)

    def broken(*arguments):
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(loop, "_finish", broken)
        run(settings, tmp_path / "broken", verbose=0)
    run(settings, tmp_path / "broken", verbose=0)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


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
    settings = config(shards, rate=0.0, synchronized=True)
    plain, alone, both = (
        run(settings, tmp_path / name, where, verbose=0)
        for name, where in (
            ("plain", None),
            ("alone", distribution.strategy("one")),
            ("both", strategy),
        )
    )
    for other in (alone, both):
        for name in METRICS:
            assert other.values(name) == pytest.approx(plain.values(name), rel=2e-3, abs=1e-6)


def test_the_same_grid_as_of_any_data(shards, tiny, tmp_path):
    """Two seeds of two orders, one of them without a rate; each run is its own."""
    options = config(shards, epochs=1).to_dict()
    varied = {"order": ["usual", "ic"], "rate": [0.05], "seed": [0, 1]}
    runs = grid("small", **{**options, **varied})
    assert [each.order for each in runs] == ["conv-bn-relu", "relu-ic-conv"] * 2
    made = [run(each, tmp_path / str(number), verbose=0) for number, each in enumerate(runs)]
    assert len({record.values("loss")[0] for record in made}) == 4
    assert [record.head["rewritten"] for record in made] == [False, True] * 2


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


def test_statistics_before_each_validation_at_the_end_and_never(shards, tiny, tmp_path):
    made = {
        when: run(config(shards, recalibrate=when), tmp_path / when, verbose=0)
        for when in ("off", "end", "each")
    }
    losses = {when: record.values("loss") for when, record in made.items()}
    assert losses["off"] == losses["end"] == losses["each"]  # training is the same
    assert made["off"].values("val_loss") == made["end"].values("val_loss")
    # The statistics at the end are those before the last validation.
    recalibrated = made["end"].recalibrated["val_loss"]
    assert recalibrated == pytest.approx(made["each"].values("val_loss")[-1], rel=1e-5)
    assert recalibrated != pytest.approx(made["off"].values("val_loss")[-1], rel=1e-2)


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
        r"^(2[1-9]|3[01]) images are damaged, more than the 20 that are passed over; mend them\."
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


class Asks(keras.callbacks.Callback):
    """Asks for a stop before a step, counted from the first of the run."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            self.model.distribution.stop_wanted = True


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("step", [3, 5], ids=["within an epoch", "in its last step"])
def test_a_stop_that_workers_agree_on(shards, tiny, tmp_path, step):
    """Seven steps an epoch; the stop is agreed on a step after it is asked for."""
    settings, one = config(shards), distribution.strategy("one")
    run(settings, tmp_path / "whole", one, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "stopped", one, callbacks=[Asks(step)], verbose=0)
    assert len(epochs(tmp_path / "stopped")) == (step == 5)
    run(settings, tmp_path / "stopped", one, verbose=0)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole", rtol=1e-5)


def test_an_epoch_of_one_step_has_a_time(shards, tiny, tmp_path):
    (line,) = run(config(shards, batch=62, epochs=1), tmp_path, verbose=0).epochs
    assert 1e-3 < line["step_seconds"] <= line["seconds"]


@pytest.mark.slow
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
