"""The record of a training on ImageNet: what the chief writes after each epoch, and what all
workers go on from.
"""

import json
import math
import pathlib
import time
from typing import Any

import keras
import numpy as np

from keras_ic import distribution
from keras_ic.distribution.agreement import broadcast
from keras_ic.experiments import record as records
from keras_ic.experiments.running import FINAL, versions
from keras_ic.imagenet.recipe import Recipe
from keras_ic.imagenet.setting import Setting

BACKUP = "backup.keras"
METRICS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "top5": "top5",
    "val_loss": "val_cross_entropy",
    "val_accuracy": "val_accuracy",
    "val_top5": "val_top5",
}


class EpochLines(keras.callbacks.Callback):
    """Writes the chief's line of each epoch."""

    chief_only = True

    def __init__(self, folder, recipe, damages):
        super().__init__()
        self.folder, self.recipe, self.damages = folder, recipe, damages

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.start, self.first, self.last, self.steps = time.perf_counter(), 0.0, 0.0, 0

    def on_train_batch_begin(self, batch, logs=None):
        """Notes when the first step begins."""
        if not self.first:
            self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Counts the steps, and the time since the first."""
        if not logs:
            return  # done before a stop
        if not self.first:  # The first step compiles, and counts only where there is no other.
            self.first, self.waited = time.perf_counter(), self.model.distribution.waited
        elif batch + 1 < self.params["steps"]:
            self.steps += 1
        else:
            float(logs["loss"])  # waits for the step
            self.steps += 1
        self.last = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Writes the line."""
        logs = logs or {}
        values = {
            name: logs[key] if math.isfinite(logs[key]) else None for name, key in METRICS.items()
        }
        steps = max(self.steps, 1)
        step = (self.last - (self.first if self.steps else self.begin)) / steps
        waited = (self._waited_at_end - self.waited) / steps
        times = {
            "seconds": time.perf_counter() - self.start,
            "step_seconds": step,
            "wait_seconds": waited,
        }
        line = {
            "epoch": epoch + 1,
            **values,
            **{name: round(value, 6) for name, value in times.items()},
        }
        line["images_per_second"] = round(self.recipe.batch / step, 1) if self.steps else None
        records.append(self.folder, {**line, "damaged": len(self.damages.names)})
        if line["images_per_second"]:
            print(
                f" {line['images_per_second']:g} images/s; a step {1000 * step:.0f} ms, of which"
                f" {1000 * waited:.0f} ms waiting for images",
                flush=True,
            )

    def on_test_begin(self, logs=None):
        """Notes how long the steps waited for images; the test's own waiting does not count."""
        self._waited_at_end = self.model.distribution.waited


def agreed_lines(
    folder: pathlib.Path, recipe: Recipe, setting: Setting, backup: distribution.Backup
) -> tuple[list[dict[str, Any]] | None, int, int]:
    """The chief's epochs so far (no lines on other workers; None on all if the run is finished),
    and the epoch and step at which to go on.

    An error on all workers if the folder is another run's, or what is in it does not fit together.
    """
    lines: list[dict[str, Any]] = []
    problem, finished, place = None, False, (0, 0)
    if setting.is_chief:
        try:
            lines, place = lines_of(folder, recipe), backup.place()
            finished = (folder / FINAL).exists()
            if len(lines) < (recipe.epochs if finished else place[0]):
                what = "finished run" if finished else "run with a backup"
                raise ValueError(
                    f"The record of this {what} lacks epochs; restore it, or choose another folder."
                    f" Received: {str(folder)!r}"
                )
        except (ValueError, OSError) as error:
            problem = error
    agreed = broadcast(setting.strategy, [np.array([problem is not None, finished, *place])])[0]
    refused, done, epoch, step = (int(value) for value in agreed)
    if refused:
        raise problem or ValueError(
            f"The chief cannot use its folder; see its message. Received: {str(folder)!r}"
        )
    return (None if done else lines), epoch, step


def lines_of(folder: pathlib.Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The epochs so far, if the folder holds a run of this recipe."""
    if not records.is_begun(folder, (BACKUP, FINAL)):
        return []
    path = folder / records.NAME
    try:
        # What has no end of line was being written when the run was stopped; the epoch will be run
        # again.
        head, *lines = [
            json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]
        ]
        was = {**head["configuration"], "seed": head["seed"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"This record is damaged ({type(error).__name__}: {error}); restore it, or choose"
            f" another folder. Received: {str(path)!r}"
        ) from None
    records.check_same(folder, was, recipe.to_dict())
    return lines


def begin(folder, recipe, model, steps, sources, setting, epochs) -> None:
    """Begins the record, or has it end after these epochs."""
    configuration = recipe.to_dict()
    head = {
        "configuration": configuration,
        "seed": configuration.pop("seed"),
        "versions": versions(),
        "parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "steps": steps,
        "images": {split: source.examples for split, source in sources.items()},
        "replicas": setting.replicas,
        "workers": setting.workers,
    }
    records.begin(folder, head, epochs)
