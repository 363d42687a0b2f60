"""The callback that writes a line of the record after each epoch."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_ic.training import record as records

# Names of the record and of Keras's logs.
NAMES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "top5": "top5",
    "val_loss": "val_cross_entropy",
    "val_accuracy": "val_accuracy",
    "val_top5": "val_top5",
}


class EpochRecorder(keras.callbacks.Callback):
    """Writes the line of each epoch.

    Args:
        folder: Path of the run.
        damaged: Function without arguments, the number of damaged images so far, or None.
    """

    chief_only = True

    def __init__(self, folder: pathlib.Path, damaged: Callable[[], int] | None):
        super().__init__()
        self.folder, self.damaged = folder, damaged

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.start, self.steps = time.perf_counter(), []
        self.waits = getattr(self._model, "distribution", None)
        self.waited = self.waits.waited if self.waits else 0.0

    def on_train_batch_begin(self, batch, logs=None):
        """Notes when a step begins."""
        self.step_start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Notes how long the step took."""
        self.steps.append(time.perf_counter() - self.step_start)

    def on_test_begin(self, logs=None):
        """Notes how long the steps have waited; the validation's own waiting does not count."""
        if self.waits:
            self.waited = self.waits.waited - self.waited

    def on_epoch_end(self, epoch, logs=None):
        """Writes the line."""
        line: dict[str, Any] = {"epoch": epoch + 1}
        line.update({name: float(logs[key]) for name, key in NAMES.items() if key in logs})
        line["seconds"] = round(time.perf_counter() - self.start, 3)
        line["step_seconds"] = round(float(np.median(self.steps)), 6)
        if self.waits:
            line["wait_seconds"] = round(self.waited / len(self.steps), 6)
        if self.damaged is not None:
            line["damaged"] = self.damaged()
        line.update({name: float(logs[name]) for name in logs if name.endswith("as_trained")})
        records.append(self.folder, line)
