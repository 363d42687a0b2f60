"""Checkpoints within an epoch, full disks, and files that are damaged."""

import zipfile

import keras
import numpy as np
import pytest

import keras_ic
from keras_ic import distribution, saving
from keras_ic.training import CheckpointCallback
from keras_ic.training.checkpoint import PROGRESS

STEPS = 5


def compiled(strategy=None, width=4):
    layers = [
        keras.layers.Dense(width, activation="relu"),
        keras_ic.IC(0.2, seed=1),
        keras.layers.Dropout(0.3, seed=2),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if strategy is not None:
        with strategy.scope():
            model = distribution.prepare(model)
            model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    else:
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def images(epoch=0, step=0):
    x = np.random.default_rng(0).normal(size=(8 * STEPS, 6)).astype("float32")
    y = np.arange(8 * STEPS) % 3
    return x[8 * step :], y[8 * step :]


class Broken(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise InterruptedError


def fit(model, path, epochs, broken=None, every=3):
    """Goes on to the end of the epochs, as the documentation says."""
    checkpoint = CheckpointCallback(path, every)
    epoch, step = checkpoint.restore(model)
    if step and not hasattr(model, "distribution"):
        x, y = images()
        model.test_on_batch(x[:8], y[:8])
    callbacks = [checkpoint, *([Broken(broken)] if broken else [])]
    history = []
    while epoch < epochs:
        last = epoch + 1 if step else epochs
        x, y = images(epoch, step)
        found = model.fit(
            x,
            y,
            batch_size=8,
            shuffle=False,
            initial_epoch=epoch,
            epochs=last,
            callbacks=callbacks,
            verbose=0,
        )
        history += found.history["loss"]
        epoch, step = last, 0
    return history


@pytest.fixture(params=["plain", "prepared"])
def strategy_or_none(request):
    if request.param == "plain":
        return None
    if keras.backend.backend() != "tensorflow":
        pytest.skip("strategies are for TensorFlow")
    return distribution.strategy("one")


def test_within_an_epoch(strategy_or_none, tmp_path):
    """Five steps an epoch, broken after 8, saved every 3: training goes on after the third step of
    the second epoch.
    """
    keras.utils.set_random_seed(0)
    whole = compiled(strategy_or_none)
    history = fit(whole, tmp_path / "whole.keras", 3)
    keras.utils.set_random_seed(0)
    with pytest.raises(InterruptedError):
        fit(compiled(strategy_or_none), tmp_path / "broken.keras", 3, broken=8)
    keras.utils.set_random_seed(1)
    resumed = compiled(strategy_or_none)
    assert CheckpointCallback(tmp_path / "broken.keras").place() == (1, 3)
    rest = fit(resumed, tmp_path / "broken.keras", 3)
    np.testing.assert_allclose(rest, history[1:], rtol=1e-6)
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.tensorflow_only  # JAX and torch build them before the first epoch
def test_metrics_that_are_not_built_are_told(tmp_path):
    with pytest.raises(InterruptedError):
        fit(compiled(), tmp_path / "c.keras", 2, broken=4)
    model, checkpoint = compiled(), CheckpointCallback(tmp_path / "c.keras")
    assert checkpoint.restore(model) == (0, 3)
    with pytest.raises(ValueError, match=r"`test_on_batch` once\. Received: "):
        model.fit(*images(), callbacks=[checkpoint], verbose=0)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.keras"
    fit(compiled(), path, 1)
    before = path.read_bytes()

    def full(model, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_model", full)
    with pytest.raises(OSError, match="No space left"):
        fit(compiled(), path, 2)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.keras"]


@pytest.mark.parametrize("what", ["of another network", "cut off", "without its place"])
def test_files_that_are_no_checkpoint_of_the_model(tmp_path, what):
    path, model = tmp_path / "checkpoint.keras", compiled()
    fit(model, path, 1)
    if what == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "without its place":
        saving.save_model(model, path)
    before = path.read_bytes()
    other = compiled(width=5) if what == "of another network" else compiled()
    with pytest.raises(ValueError, match=r"The checkpoint cannot be read .*Received: '.*keras'"):
        CheckpointCallback(path).restore(other)
    assert path.read_bytes() == before


def test_every_flipped_byte_is_the_same_error(tmp_path):
    """In the entry that holds the place, and in the directory at the end of the file."""
    path = tmp_path / "checkpoint.keras"
    fit(compiled(), path, 1)
    content = path.read_bytes()
    start = content.index(PROGRESS.encode())
    for place in range(start - 30, len(content), 7):
        for flips in (1, 8, 255):
            changed = bytearray(content)
            changed[place] ^= flips
            path.write_bytes(changed)
            try:
                found = CheckpointCallback(path).place()
            except ValueError as error:
                assert "\n" not in str(error) and str(error).endswith(f"Received: {str(path)!r}")
            else:
                assert found == (1, 0)


@pytest.mark.parametrize("content", ["null", "{}", "[" * 100_000, '{"epoch": "x"}', "1"])
def test_a_place_that_is_damaged(tmp_path, content):
    path = tmp_path / "checkpoint.keras"
    saving.save_model(compiled(), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(PROGRESS, content)
    with pytest.raises(ValueError, match=r"restore it from a copy, or delete it\. Received: '"):
        CheckpointCallback(path).place()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"must end in `.keras`.*Received: 'b.h5'"):
        CheckpointCallback("b.h5")
    for every in (0, -1, "a"):
        with pytest.raises(ValueError, match=r"`every` must be an integer above 0\. Received: "):
            CheckpointCallback("b.keras", every)
