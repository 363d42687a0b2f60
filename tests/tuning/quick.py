"""In place of `training.run`, one that trains nothing and leaves the same files, so that the tests
of searches are about searches. `python -m tests.tuning.quick` is a worker that uses it.
"""

import functools
import os
import pathlib
import sys
import tempfile
import time

import keras

from keras_ic import saving
from keras_ic.training import read, record
from keras_ic.training.loop import CHECKPOINT, FINAL
from keras_ic.utils.folder_lock import folder_lock

SECONDS = "QUICK_SECONDS"  # of the environment: how long an epoch takes


@functools.cache
def model():
    """The bytes of a small compiled model of the digits."""
    made = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile("sgd", loss, weighted_metrics=["accuracy"], run_eagerly=True)
    path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    saving.save_model(made, path)
    return path.read_bytes()


def accuracy(config, epoch):
    """Grows over the epochs; the smaller the rates, the better."""
    return round(0.5 + 0.1 * epoch - config.rate - 10 * config.learning_rate, 6) / (config.seed + 1)


def run(config, folder, data_dir=None, callbacks=(), verbose=0):
    """Leaves what `training.run` leaves, and goes on where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        before = read(folder) if (folder / record.NAME).exists() else None
        if before is not None and before.is_finished:
            return before
        start = len(before.epochs) if before is not None else 0
        values = config.to_dict()
        head = {"schema": record.SCHEMA, "seed": values.pop("seed"), "configuration": values}
        head |= {"versions": {}, "replicas": 1, "workers": 1, "devices": {"cpu": 1}, "hosts": ["a"]}
        head |= {"parameters": 1, "steps": 1}
        record.begin(folder, head, before, start)
        for epoch in range(start, config.epochs):
            for callback in callbacks:
                callback.on_epoch_begin(epoch)
            time.sleep(float(os.environ.get(SECONDS, "0")))
            found = accuracy(config, epoch)
            for callback in callbacks:
                callback.on_train_batch_end(0)
                callback.on_epoch_end(epoch, {"val_accuracy": found})
            line = dict.fromkeys(record.EPOCH, 0.0) | {"epoch": epoch + 1, "val_accuracy": found}
            record.append(folder, line)
            (folder / CHECKPOINT).write_bytes(model())
        (folder / CHECKPOINT).rename(folder / FINAL)
    return read(folder)


if __name__ == "__main__":
    from keras_ic.tuning import trial, worker

    trial.training.run = run
    sys.exit(worker.main(sys.argv[1:]))
