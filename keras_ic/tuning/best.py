"""What a search comes to: the best trial's model, what it is worth on the test set, and the command
that trains it again.
"""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from keras_ic import saving
from keras_ic.training import datasets
from keras_ic.training.arguments import command_line
from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets.in_memory import TEST_BATCH, images
from keras_ic.training.loop import CHECKPOINT, FINAL
from keras_ic.tuning.description import Search
from keras_ic.tuning.trial import folder_of
from keras_ic.utils.json_files import checking_content, read_json

MODEL, NAME = "best.keras", "best.json"
ADVICE = "restore it from a copy, or delete it, and the same command makes it again"


def best(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The best of the trials that were neither stopped nor failed, the first of equals; of
    Hyperband's, of those of most epochs.
    """
    completed = [result for result in results if result["status"] == "COMPLETED"]
    most = max((result["epochs"] for result in completed), default=0)
    return max(
        (result for result in completed if result["epochs"] == most),
        key=lambda result: result["score"],
        default=None,
    )


def conclude(
    search: Search, folder: pathlib.Path, results: list[dict[str, Any]], data_dir: Any
) -> dict[str, Any]:
    """Leaves `best.keras` and `best.json`, reading the test set for it, unless it was done before.

    Returns:
        What is in `best.json`: the line of the trial in the record, the `test_accuracies` of the
        models of its seeds, and the `command`.

    Raises:
        ValueError: If there is no trial to be the best.
    """
    path = folder / NAME
    if path.exists():
        return read_best(folder)
    found = best(results)
    if found is None:
        last = next(
            (result["error"] for result in reversed(results) if "error" in result), "there was none"
        )
        raise ValueError(
            f"None of {len(results)} trials came to its end. The error of the last was: {last}"
        )
    configuration = TrainingConfig(**found["configuration"])
    models = models_of(folder, found["trial"])
    with saving.replacing(folder / MODEL) as new:
        shutil.copyfile(models[0], new)
    made = {
        **found,
        "command": command_line(dataclasses.replace(configuration, validation=0.0)),
    }
    if configuration.is_in_memory:  # image files have no third set
        made["test_accuracies"] = _test_accuracies(configuration, models, data_dir)
    with saving.replacing(path) as new:
        new.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return made


def read_best(folder: pathlib.Path) -> dict[str, Any]:
    """What `best.json` holds."""
    path = folder / NAME
    made = read_json(path, ("trial", "values", "score", "command"), ADVICE)
    with checking_content(path, advice=ADVICE):
        TrainingConfig(**made["configuration"])
        [float(each) for each in made.get("test_accuracies", [])]
    return made


def models_of(folder: pathlib.Path, trial_id: str) -> list[pathlib.Path]:
    """The models of a trial, one for each seed."""
    runs = sorted(
        folder_of(folder, trial_id).glob("seed*"),
        key=lambda run: int(run.name.removeprefix("seed")),
    )
    return [
        path
        for run in runs
        for path in [run / FINAL if (run / FINAL).exists() else run / CHECKPOINT]
        if path.exists()
    ]


def forget_others(folder: pathlib.Path, results: list[dict[str, Any]]) -> None:
    """Deletes the models of trials that have ended and are not the best; their records stay."""
    kept = best(results)
    for result in results:
        if kept is not None and result["trial"] != kept["trial"]:
            for path in models_of(folder, result["trial"]):
                path.unlink()


def _test_accuracies(
    configuration: TrainingConfig, models: list[pathlib.Path], data_dir: Any
) -> list[float]:
    mean, std = datasets.channel_statistics(images(configuration, data_dir)[0][0])
    _, (x, y) = images(dataclasses.replace(configuration, validation=0.0), data_dir)
    batches = datasets.test_dataset(x, y, TEST_BATCH, mean, std)
    return [
        float(
            np.float32(
                saving.load_model(path).evaluate(batches, verbose=0, return_dict=True)["accuracy"]
            )
        )
        for path in models
    ]
