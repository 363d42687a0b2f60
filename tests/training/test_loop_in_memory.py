"""What began with image files, for images in memory: each option once, on the digits."""

import keras
import numpy as np
import pytest

from keras_ic import saving
from keras_ic.training import TrainingConfig, datasets, run, workers
from tests.distribution.breaking import Broken
from tests.training.comparing import assert_same_run

# Three steps an epoch, the last of 6 images.
SMALL = {"data": "digits", "model": "small", "batch": 32, "train_size": 70, "epochs": 2}


def small(**values):
    return TrainingConfig(**{**SMALL, **values})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without any of the options."""
    return run(small(), tmp_path_factory.mktemp("plain"), verbose=0)


@pytest.mark.parametrize("step", [2, 5])
def test_checkpoints_within_an_epoch(tmp_path, step):
    """Broken off a step after a checkpoint; with everything that has a state."""
    settings = small(ema=0.9, label_smoothing=0.1, rate=0.1)
    run(settings, tmp_path / "whole", verbose=0)
    with pytest.raises(InterruptedError):
        run(
            settings,
            tmp_path / "broken",
            checkpoint_steps=1,
            callbacks=[Broken(step)],
            verbose=0,
        )
    run(settings, tmp_path / "broken", verbose=0)
    assert_same_run(tmp_path / "broken", tmp_path / "whole", rtol=1e-5)


def test_an_average_of_the_weights_is_judged_and_kept(tmp_path, plain):
    record = run(small(ema=0.9), tmp_path, verbose=0)
    assert record.values("loss") == pytest.approx(plain.values("loss"), rel=1e-5)
    assert record.values("val_loss") != pytest.approx(plain.values("val_loss"), rel=1e-3)
    model = saving.load_model(tmp_path / "model.keras")
    images = datasets.make_dataset(small())
    x, y = images.judged
    result = model.evaluate(
        (x - images.standardization[0]) / images.standardization[1],
        y,
        verbose=0,
        return_dict=True,
    )
    assert result["cross_entropy"] == pytest.approx(record.values("val_loss")[-1], rel=1e-4)


def test_an_epoch_of_one_step_has_a_time(tmp_path):
    (line,) = run(small(train_size=32, epochs=1), tmp_path, verbose=0).epochs
    assert 1e-3 < line["step_seconds"] <= line["seconds"]


def test_smoothing_is_in_the_loss_and_not_in_that_of_the_validation(tmp_path):
    """With nothing learned, the two runs differ in the training loss alone."""
    frozen = {"learning_rate": 1e-30, "schedule": "constant", "epochs": 1}
    without, smoothed = (
        run(small(label_smoothing=share, **frozen), tmp_path / str(share), verbose=0)
        for share in (0.0, 0.5)
    )
    assert smoothed.values("val_loss") == pytest.approx(without.values("val_loss"), rel=1e-5)
    assert smoothed.values("loss") != pytest.approx(without.values("loss"), rel=1e-4)


def test_warm_up(tmp_path):
    seen = []

    class LearningRates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(float(self.model.optimizer.learning_rate))

    settings = small(schedule="cosine", warmup_epochs=1, learning_rate=0.01, epochs=3)
    run(settings, tmp_path, callbacks=[LearningRates()], verbose=0)
    cosine = 0.005 * (1 + np.cos(np.pi * np.arange(6) / 6))
    np.testing.assert_allclose(seen, [0, 0.01 / 3, 0.02 / 3, *cosine], rtol=1e-5, atol=1e-9)


@pytest.mark.tensorflow_only
def test_two_replicas_equal_one_device(tmp_path, strategy):
    """Masks aside. The last batch of an epoch is shared out, too."""
    settings = small(rate=0.0, synchronized=True, optimizer="sgd", augment=True)
    alone, both = (
        run(settings, tmp_path / name, where, verbose=0)
        for name, where in (("alone", None), ("both", strategy))
    )
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert both.values(name) == pytest.approx(alone.values(name), rel=1e-3, abs=1e-6)
    assert both.head["replicas"] == 2


@pytest.mark.tensorflow_only
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, monkeypatch):
    def without_normalization(config, shape, classes, is_standardized):
        kernel = keras.initializers.GlorotUniform(seed=0)
        layers = [keras.layers.Flatten(), keras.layers.Dense(classes, kernel_initializer=kernel)]
        return keras.Sequential([keras.Input(shape), *layers])

    monkeypatch.setattr(workers, "network", without_normalization)
    whole, parts = (
        run(small(accumulate=count, recalibrate="off"), tmp_path / str(count), verbose=0)
        for count in (1, 2)
    )
    for name in ("loss", "val_loss"):
        assert parts.values(name) == pytest.approx(whole.values(name), rel=1e-4)


def test_accumulation_and_strategies_need_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(NotImplementedError, match="backend 'jax' with accumulate=2"):
        run(small(accumulate=2), tmp_path)
