"""One trial: its runs, one for each seed, each of which goes on where it stopped."""

import contextlib
import dataclasses
import gc
import json
import pathlib
import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_ic import saving, training
from keras_ic.training.datasets import MissingDataError
from keras_ic.training.loop import CHECKPOINT, FINAL
from keras_ic.training.record import NAME as RECORD
from keras_ic.tuning.description import Search
from keras_ic.tuning.oracles import RESULTS
from keras_ic.tuning.pruning import is_poor
from keras_ic.utils.folder_lock import folder_lock
from keras_ic.utils.json_files import read_json, read_json_lines

RESULT = "result.json"
WAIT_FOR_FOLDER = 1.0  # seconds until a folder that another process has is asked for again
# What the next trial would meet, too: the search stops, and resumes once it is fixed. (Workers
# whose chief is gone, or whose trial is another's, raise a `ConnectionError`, an `OSError`.)
NOT_ITS_FAULT = (MissingDataError, OSError, ImportError)


def folder_of(search_folder: pathlib.Path, trial_id: Any) -> pathlib.Path:
    """The folder of a trial; an error if the id is none."""
    if not isinstance(trial_id, str) or not re.fullmatch(r"[0-9]{1,18}", trial_id):
        raise ValueError(f"The id of a trial must be digits. Received: {str(trial_id)[:80]!r}")
    return search_folder / "trials" / trial_id


def run_trial(
    search: Search,
    trial_id: str,
    values: dict[str, Any],
    folder: pathlib.Path,
    data_dir: Any = None,
    confirm: Callable[[], None] = lambda: None,
    callbacks: Sequence = (),
    verbose: Any = 0,
) -> dict[str, Any]:
    """Runs a trial, or goes on with it, and leaves its result in its folder.

    Args:
        search: The `Search`.
        trial_id: String, the id of the trial.
        values: Dictionary of the values of its hyperparameters.
        folder: Path of the folder of the search.
        data_dir: Path of the folder of tensorflow-datasets.
        confirm: Function that raises a `ConnectionError` if the trial is another worker's by now,
            which is asked before anything is written.
        callbacks: Sequence of further Keras callbacks.
        verbose: As in `fit`.

    Returns:
        Dictionary with `status`: `"COMPLETED"`, `"PRUNED"` or `"FAILED"`, then with `error`. Else
        with `scores`, the validation accuracies of the seeds after their last epoch; `score`, their
        mean; `curve`, those of the epochs of the first seed; `epochs`, and the `configuration`.
    """
    own = folder_of(folder, trial_id)
    own.mkdir(parents=True, exist_ok=True)
    with _when_free(own, confirm):
        if (own / RESULT).exists():
            return read_result(folder, trial_id)
        configuration = search.configuration(values)
        try:
            result = _result(
                search, configuration, values, folder, own, data_dir, callbacks, verbose
            )
        except NOT_ITS_FAULT:
            raise
        except Exception as error:  # whatever it is, it is the trial's own, and the search goes on
            confirm()
            (own / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            text = " ".join(str(error).split())
            result = {"status": "FAILED", "error": f"{type(error).__name__}: {text}"}
        finally:
            # Keras and TensorFlow keep what a model has left, which adds up over many trials
            # (keras-tuner#873).
            keras.utils.clear_session()
            gc.collect()
        result["configuration"] = configuration.to_dict()
        confirm()
        with saving.replacing(own / RESULT) as new:
            new.write_text(json.dumps(result), encoding="utf-8")
    return result


def read_result(folder: pathlib.Path, trial_id: str) -> dict[str, Any]:
    """What a trial has left."""
    path = folder_of(folder, trial_id) / RESULT
    if not path.exists():
        missing = f"there is no {RESULT} in the folder of the trial"
        return {
            "status": "FAILED",
            "error": f"{missing}; do all workers have the folder in common?",
        }
    return read_json(path, ("status",), "delete it, and the trial is run again")


@contextlib.contextmanager
def _when_free(folder: pathlib.Path, confirm: Callable[[], None]) -> Iterator[None]:
    """Keeps the folder of a trial for this process. A worker that counts as dead may only be
    suspended, and has the folder until it is told or killed.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(folder_lock(folder))
                break
            except ValueError as error:
                print(error, flush=True)
                time.sleep(WAIT_FOR_FOLDER)
                confirm()
        yield


def _result(
    search, configuration, values, folder, own, data_dir, callbacks, verbose
) -> dict[str, Any]:
    epochs = int(values.get("tuner/epochs", configuration.epochs))  # Hyperband's
    past = values.get("tuner/trial_id")
    runs: list[list[float]] = []
    scores: list[float] = []
    seconds = 0.0
    status = "COMPLETED"
    for seed in range(configuration.seed, configuration.seed + search.seeds):
        name = f"seed{seed}"
        if past is not None and not (own / name).exists():
            _copy(folder_of(folder, past) / name, own / name)
        others = _curves(folder) if search.prune and not runs else []
        record = _train(
            dataclasses.replace(configuration, seed=seed),
            own / name,
            epochs,
            others,
            data_dir,
            callbacks,
            verbose,
        )
        runs.append(record.values("val_accuracy")[:epochs])
        scores.append((record.recalibrated or {"val_accuracy": runs[-1][-1]})["val_accuracy"])
        seconds += sum(record.values("seconds")[:epochs])
        if len(runs[-1]) < epochs:
            status = "PRUNED"
            break
    return {
        "status": status,
        "score": float(np.mean(scores)),
        "scores": scores,
        "epochs": len(runs[0]),
        "seconds": round(seconds, 3),
        "curve": runs[0],
    }


def _train(configuration, folder, epochs, others, data_dir, callbacks, verbose) -> training.Record:
    """The record of a run that has come to so many epochs, or to where it turned out poor."""
    rule = _Enough(epochs, configuration.epochs, others)
    if (folder / RECORD).exists():
        before = training.read(folder)
        rule.curve = before.values("val_accuracy")
        if not before.is_finished and (folder / CHECKPOINT).exists() and rule.is_met():
            return before
    with contextlib.suppress(_EnoughError):
        training.run(
            configuration, folder, data_dir=data_dir, callbacks=[rule, *callbacks], verbose=verbose
        )
    return training.read(folder)


class _EnoughError(Exception):
    """Ends a run between two epochs, with its checkpoint in place."""


class _Enough(keras.callbacks.Callback):
    """Stops a run after so many of all its epochs, or when its curve turns out poor."""

    def __init__(self, epochs: int, of: int, others: list[list[float]]):
        super().__init__()
        self.epochs, self.of, self.others = epochs, of, others
        self.curve: list[float] = []

    def is_met(self) -> bool:
        done = len(self.curve)
        return 0 < done < self.of and (done >= self.epochs or is_poor(self.curve, self.others))

    def on_epoch_begin(self, epoch, logs=None):
        # Not at the end of the epoch before, which is recorded and saved after that of the
        # callbacks that a run is given.
        if epoch and epoch == len(self.curve) and self.is_met():
            raise _EnoughError

    def on_epoch_end(self, epoch, logs=None):
        self.curve = [*self.curve[:epoch], logs["val_accuracy"]]


def _curves(folder: pathlib.Path) -> list[list[float]]:
    path = folder / RESULTS
    lines = read_json_lines(path) if path.exists() else []
    return [line["curve"] for line in lines if "curve" in line]


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A run to go on with in another folder, whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    if (partial / FINAL).exists():
        raise ValueError(
            f"This run is finished, and cannot be continued. Received: {str(source)!r}"
        )
    partial.rename(target)
