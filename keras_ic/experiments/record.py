"""The record of a run: a JSON line of what it is, then one an epoch."""

import dataclasses
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from keras_ic import saving
from keras_ic.experiments.configuration import Configuration

if TYPE_CHECKING:
    from keras_ic.imagenet.recipe import Recipe

NAME = "record.jsonl"
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
EPOCH = ("epoch", *METRICS, "seconds", "step_seconds")
TOP5 = "val_top5"


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run has left.

    Attributes:
        folder: `pathlib.Path` of the run.
        configuration: The `Configuration`; the `keras_ic.imagenet.Recipe` of a training on
            ImageNet.
        versions: Dictionary of the packages and Python, as strings.
        parameters: Integer, the trainable parameters.
        steps: Integer, the steps of an epoch.
        epochs: List of dictionaries with `epoch` (from 1), `loss`, `accuracy`, `val_loss`,
            `val_accuracy`, `seconds` (with the validation) and `step_seconds` (the median of the
            training steps), on ImageNet also `val_top5`. Accuracies go from 0 to 1; a loss that was
            not finite is nan.
        recalibrated: Dictionary with `val_loss` and `val_accuracy` after `keras_ic.recalibrate`, or
            None.
    """

    folder: pathlib.Path
    configuration: "Configuration | Recipe"
    versions: dict[str, str]
    parameters: int
    steps: int
    epochs: list[dict[str, Any]]
    recalibrated: dict[str, Any] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all its epochs are there."""
        recalibrate = getattr(self.configuration, "recalibrate", False)
        return (
            len(self.epochs) == self.configuration.epochs
            and (self.recalibrated is not None) == recalibrate
        )

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
        ValueError: If there is none, or a line of it is damaged; naming file and line.

    Example:

    ```python
    import json, pathlib, tempfile
    from keras_ic.experiments import Configuration, read

    folder = pathlib.Path(tempfile.mkdtemp())
    configuration = Configuration(epochs=1).to_dict()
    head = {
        "configuration": configuration,
        "seed": configuration.pop("seed"),
        "versions": {},
        "parameters": 9,
        "steps": 1,
    }
    epoch = {
        "epoch": 1,
        "loss": 0.4,
        "accuracy": 0.8,
        "val_loss": 0.5,
        "val_accuracy": 0.7,
        "seconds": 9.5,
        "step_seconds": 0.1,
    }
    folder.joinpath("record.jsonl").write_text(f"{json.dumps(head)}\\n{json.dumps(epoch)}\\n")
    assert read(folder).values("val_accuracy") == [0.7]
    ```
    """
    path = pathlib.Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"There is no record of a run here; give the folder that holds a {NAME}. Received:"
            f" {str(path)!r}"
        )
    # What has no end of line was being written when the run was stopped; the epoch will be run
    # again.
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    head, epochs, recalibrated = None, [], None
    for number, line in enumerate(lines or [""], 1):
        try:
            content = json.loads(line)
            if number == 1:
                configuration = _configuration(
                    {**content["configuration"], "seed": content["seed"]}
                )
                head = (
                    configuration,
                    dict(content["versions"]),
                    int(content["parameters"]),
                    int(content["steps"]),
                )
            elif "recalibrated" in content:
                recalibrated = {
                    name: float(content["recalibrated"][name])
                    for name in ("val_loss", "val_accuracy")
                }
            else:
                if (
                    type(content["epoch"]) is not int
                    or content["epoch"] != number - 1
                    or recalibrated is not None
                ):
                    raise ValueError("out of order")
                epochs.append(
                    {
                        name: _number(content[name])
                        for name in (*EPOCH, TOP5)
                        if name != TOP5 or name in content
                    }
                )
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            what = f"line {number} of this record is damaged ({type(error).__name__}: {error})"
            raise ValueError(
                f"{what}; restore it from a copy, or delete the folder and run again. Received:"
                f" {str(path)!r}"
            ) from None
    assert head is not None
    return Record(path.parent, *head, epochs, recalibrated)


def _configuration(values: dict[str, Any]) -> "Configuration | Recipe":
    if "warmup_epochs" not in values:
        return Configuration(**values)
    # Not above, because the recipe is made with what stands in this package.
    from keras_ic.imagenet.recipe import Recipe

    return Recipe(**values)


def _number(value):
    if value is None:
        return float("nan")
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
        ValueError: For a path that is no folder or a damaged record, and if there is no record at
            all.

    Example:

    ```python
    import json, pathlib, tempfile
    from keras_ic.experiments import Configuration, find

    folder = pathlib.Path(tempfile.mkdtemp())
    for seed in (0, 1):
        configuration = Configuration(seed=seed).to_dict()
        head = {
            "configuration": configuration,
            "seed": configuration.pop("seed"),
            "versions": {},
            "parameters": 9,
            "steps": 1,
        }
        folder.joinpath(f"seed{seed}").mkdir()
        folder.joinpath(f"seed{seed}", "record.jsonl").write_text(json.dumps(head) + "\\n")
    assert [record.configuration.seed for record in find(folder)] == [0, 1]
    ```
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    for path in paths:
        if not pathlib.Path(path).is_dir():
            raise ValueError(
                f"This is no folder; give folders that hold runs. Received: {str(path)!r}"
            )
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


def begin(folder: pathlib.Path, head: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
    """Writes the record anew, with the epochs that count."""
    folder.mkdir(parents=True, exist_ok=True)
    with saving.replacing(folder / NAME) as new:
        new.write_text(
            "".join(json.dumps(line) + "\n" for line in [head, *epochs]), encoding="utf-8"
        )


def append(folder: pathlib.Path, line: dict[str, Any]) -> None:
    """Adds a line, which is on the disk when this returns."""
    with open(folder / NAME, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
