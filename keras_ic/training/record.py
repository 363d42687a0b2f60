"""The record of a run: a JSON line of what it is, then one an epoch."""

import dataclasses
import importlib
import json
import math
import os
import pathlib
import platform
from typing import Any

import keras
import numpy as np

from keras_ic import saving
from keras_ic.training.config import TrainingConfig
from keras_ic.utils.json_files import checking_content, read_json_lines
from keras_ic.version import __version__

NAME, SCHEMA = "record.jsonl", 1
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
EPOCH = ("epoch", *METRICS, "seconds", "step_seconds")
ADVICE = "restore it from a copy, or delete the folder and run again"


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run has left.

    Attributes:
        folder: `pathlib.Path` of the run.
        config: The `TrainingConfig`.
        head: Dictionary, the first line: `schema`, `configuration` and `seed`, `rewritten` (whether
            the network came out of `keras_ic.rewrite`), `versions` of the packages and Python,
            `parameters` (trainable), `steps` of an epoch, `images` of each split; where it took
            place: `replicas`, `workers`, `devices` (a dictionary from their kind to their number)
            and `hosts` (their names, the chief's first); and `resumed`, a list of the `versions`
            and places that the run went on with, each from its `epoch`, where they were others.
        epochs: List of dictionaries with `epoch` (from 1), `loss` (with penalties and smoothing),
            `accuracy`, `val_loss` (the cross entropy alone), `val_accuracy`, `seconds` (with the
            validation) and `step_seconds` (the median of the training steps). With more than ten
            classes there are `top5` and `val_top5`; with several replicas `wait_seconds`, the
            part of a step in which it waited for images; of image files `damaged`, how many damaged
            images were met. Accuracies go from 0 to 1; a loss that is not finite or known is nan.
        recalibrated: Dictionary with `val_loss` and `val_accuracy` after `keras_ic.recalibrate`, or
            None.
    """

    folder: pathlib.Path
    config: TrainingConfig
    head: dict[str, Any]
    epochs: list[dict[str, Any]]
    recalibrated: dict[str, Any] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all its epochs are there."""
        asked = self.config.recalibrate == "end"
        return len(self.epochs) == self.config.epochs and asked == (self.recalibrated is not None)

    def values(self, name: str) -> list[float]:
        """One value an epoch, as `values("val_accuracy")`."""
        return [epoch[name] for epoch in self.epochs]


def read(path: Any) -> Record:
    """Reads the record of a run.

    Args:
        path: Path of the folder of the run, or of its `record.jsonl`.

    Returns:
        The `Record`.

    Raises:
        ValueError: If there is none, it is of another schema, or a line of it is damaged; naming
            file and line.

    Example:

    ```python
    import tempfile
    from keras_ic.training import TrainingConfig, read, run

    folder = tempfile.mkdtemp()
    run(TrainingConfig(data="digits", model="small", epochs=1, train_size=64), folder, verbose=0)
    assert 0 <= read(folder).values("val_accuracy")[0] <= 1
    ```
    """
    path = pathlib.Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"There is no record of a run here; give the folder that holds a {NAME}. Received:"
            f" {str(path)!r}"
        )
    lines = read_json_lines(path, advice=ADVICE)
    with checking_content(path, 1, ADVICE):
        head = lines[0]
        if head["schema"] != SCHEMA:
            raise ValueError(f"its schema is {head['schema']!r}, not {SCHEMA}")
        config = TrainingConfig(**{**head["configuration"], "seed": head["seed"]})
        head = {**head, **{name: int(head[name]) for name in ("parameters", "steps")}}
        dict(head["versions"])
    epochs: list[dict[str, Any]] = []
    recalibrated = None
    for number, content in enumerate(lines[1:], 2):
        with checking_content(path, number, ADVICE):
            if recalibrated is not None or (
                "recalibrated" not in content and content["epoch"] != number - 1
            ):
                raise ValueError("out of order")
            if "recalibrated" in content:
                given = content["recalibrated"]
                recalibrated = {name: _number(given[name]) for name in ("val_loss", "val_accuracy")}
            else:
                names = [*EPOCH, *(name for name in content if name not in EPOCH)]
                epochs.append({name: _number(content[name]) for name in names})
    return Record(path.parent, config, head, epochs, recalibrated)


def _number(value: Any) -> Any:
    if value is None:  # JSON has no nan
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    float(value)  # an integer may be too large to be calculated with
    return value


def find(paths: Any) -> list[Record]:
    """All records in folders and the folders in them.

    Args:
        paths: Path or list of paths.

    Returns:
        List of `Record`, by path.

    Raises:
        ValueError: For a damaged record, a path that is not a folder, and a folder without one.

    Example:

    ```python
    import pathlib, tempfile
    from keras_ic.training import find, grid, run

    folder = pathlib.Path(tempfile.mkdtemp())
    for config in grid(data="digits", model="small", epochs=1, train_size=64, seed=[0, 1]):
        run(config, folder / config.name, verbose=0)
    assert [record.config.seed for record in find(folder)] == [0, 1]
    ```
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    for path in paths:
        if not pathlib.Path(path).is_dir():
            raise ValueError(f"Give folders that hold runs. Received: {str(path)!r}")
    found = sorted({record for path in paths for record in pathlib.Path(path).rglob(NAME)})
    if not found:
        raise ValueError(
            f"There is no {NAME} in these folders; give the --out of finished runs. Received:"
            f" {', '.join(map(str, paths))}"
        )
    return [read(path) for path in found]


def is_begun(folder: pathlib.Path, others: tuple[str, ...]) -> bool:
    """Whether a folder holds the record of a run; an error if it is no folder, or holds one of the
    other files of a run without the record.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"The folder of a run must be a folder; choose another. Received: {str(folder)!r}"
        )
    if (folder / NAME).exists():
        return True
    for name in others:
        if (folder / name).exists():
            raise ValueError(
                f"There is a {name} here, but not the record of its run; choose another folder."
                f" Received: {str(folder)!r}"
            )
    return False


def check_same(
    folder: pathlib.Path, was: dict[str, Any], now: dict[str, Any], what: str = "run"
) -> None:
    """An error that names the differences, if a folder holds another run than the one that is
    wanted there now.
    """
    differences = [
        f"{name} {was.get(name)} there, {value} here"
        for name, value in now.items()
        if was.get(name) != value
    ]
    if differences:
        raise ValueError(
            f"This folder holds another {what} ({', '.join(differences)}); choose another folder."
            f" Received: {str(folder)!r}"
        )


def begin(folder: pathlib.Path, head: dict[str, Any], before: Record | None, epochs: int) -> None:
    """Rewrites the record with the epochs that count. What a run was begun with stays in its
    first line; what it goes on with is added to it, where that is another.
    """
    lines: list[dict[str, Any]] = []
    if before is not None:
        names = ("versions", "replicas", "workers", "devices", "hosts")
        stages = [before.head, *before.head.get("resumed", [])]
        stages = [stage for stage in stages if stage.get("epoch", 1) <= epochs]
        now = {name: head[name] for name in names}
        resumed = stages[1:]
        if stages and any(stages[-1].get(name) != value for name, value in now.items()):
            resumed = [*resumed, {"epoch": epochs + 1, **now}]
        if stages:
            head = {**before.head, **({"resumed": resumed} if resumed else {})}
        lines = before.epochs[:epochs]
    folder.mkdir(parents=True, exist_ok=True)
    written = [head, *({name: _json(value) for name, value in line.items()} for line in lines)]
    with saving.replacing(folder / NAME) as new:
        new.write_text("".join(json.dumps(line) + "\n" for line in written), encoding="utf-8")


def append(folder: pathlib.Path, line: dict[str, Any]) -> None:
    """Adds a line, which is on the disk when this returns."""
    line = {name: _json(value) for name, value in line.items()}
    with open(folder / NAME, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """The versions of this package, Keras, NumPy, Python and the backend, which a record keeps."""
    backend = keras.backend.backend()
    return {
        "keras_ic": __version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        backend: importlib.import_module(backend).__version__,
    }
