"""The command line, `keras-ic` and `python -m keras_ic`. Each verb is a thin call of one public
function.

Exit codes: 0 done; 2 the user can mend it (one line on stderr); 75 stopped by a signal with
everything saved; 1 anything else.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import keras

from keras_ic import saving
from keras_ic.training import command as training_command
from keras_ic.training.datasets import MissingDataError
from keras_ic.tuning import command as tuning_command
from keras_ic.utils.exit_codes import ExitCode
from keras_ic.utils.lazy_imports import needed
from keras_ic.version import __version__


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """One line, without the usage that argparse puts before it."""
        self.exit(ExitCode.USER_ERROR, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: The arguments, without the name of the program. Defaults to `None`: those of the
            process.

    Returns:
        The exit code.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    from keras_ic.cli import main

    path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)]
    )
    model.save(path)
    assert (
        main(["rewrite", str(path), "--weights", "preserve", "-o", str(path.with_name("ic.keras"))])
        == 0
    )
    assert path.with_name("ic.keras").exists()
    ```
    """
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return arguments.run(arguments) or 0
    except (ValueError, OSError, ImportError, NotImplementedError, MissingDataError) as error:
        print(f"{parser.prog} {arguments.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return ExitCode.USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="keras-ic",
        description=(
            "The Independent-Component layer for Keras: BatchNorm and a little dropout before each"
            " weight layer."
        ),
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"keras_ic {__version__}, Keras {keras.__version__} on {keras.backend.backend()}",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    plan = _model_verb(
        verbs,
        "plan",
        _plan,
        "show what `rewrite` would do to a model",
        "also write the plan as JSON",
    )
    rewrite = _model_verb(
        verbs,
        "rewrite",
        _rewrite,
        "rewrite a model into its IC form",
        "where to write it; defaults to MODEL_ic.keras",
    )
    _model_verb(
        verbs,
        "fold",
        _fold,
        "fold normalizations into weights, for inference",
        "where to write it; defaults to MODEL_folded.keras",
    )
    _model_verb(
        verbs,
        "inspect",
        _inspect,
        "list weight layers, IC layers and BatchNormalization layers of a model",
        "also write the list as JSON",
    )
    measure = _model_verb(
        verbs,
        "measure",
        _measure,
        "tell how independent the inputs of each weight layer are",
        "also write the numbers as JSON",
    )
    images = (
        "the images to run: the test images of digits, cifar10 or cifar100, or the array `x` of a"
        " file"
    )
    measure.add_argument(
        "--data", required=True, metavar="digits|cifar10|cifar100|FILE.npz", help=images
    )
    measure.add_argument(
        "--standardize",
        action="store_true",
        help="standardize test images by the training images, as `keras-ic train` does",
    )
    measure.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow-datasets (default: its own, ~/tensorflow_datasets)",
    )
    measure.add_argument("--steps", type=int, help="how many batches to read (default: all)")
    measure.add_argument(
        "--batch", type=int, default=32, help="the size of a batch (default: %(default)s)"
    )
    measure.add_argument(
        "--seed",
        type=int,
        default=0,
        help="chooses channels, positions and pairs (default: %(default)s)",
    )
    measure.add_argument("--plot", metavar="FILE", help="also draw a figure")
    training_command.add(verbs)
    what = "make a table and figures of the records found in folders"
    report = verbs.add_parser("report", help=what, description=what)
    report.add_argument(
        "folders", nargs="+", metavar="DIR", help="folders of runs, or folders that contain them"
    )
    report.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="where to write table.md, summary.json and the figures",
    )
    report.set_defaults(run=_report)
    tuning_command.add(verbs)
    for verb in (plan, rewrite):
        verb.add_argument(
            "--rate",
            type=float,
            default=0.05,
            help="probability to drop a value, from 0 to below 1 (default: %(default)s)",
        )
        verb.add_argument(
            "--weights",
            default="fresh",
            help=(
                "fresh, copy, or preserve, which keeps the function of the model at inference"
                " (default: %(default)s)"
            ),
        )
        verb.add_argument(
            "--normalization",
            default="remove",
            help="remove or keep the BatchNormalization layers (default: %(default)s)",
        )
        verb.add_argument(
            "--bias",
            default="repair",
            help="repair or leave layers that lose their BatchNormalization (default: %(default)s)",
        )
        verb.add_argument(
            "--no-share",
            dest="share",
            action="store_false",
            help="give each weight layer an IC layer of its own",
        )
        verb.add_argument(
            "--no-skip-first",
            dest="skip_first",
            action="store_false",
            help="put IC layers on the raw input too",
        )
    return parser


def _model_verb(verbs, name: str, run, what: str, output: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=what, description=what)
    verb.add_argument(
        "model",
        metavar="MODEL.keras",
        help="the model, a file that Keras saved; an older one, .h5, too",
    )
    verb.add_argument("-o", "--output", metavar="OUT", help=output)
    verb.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        nargs="+",
        default=[],
        help="import these first: they register classes of your own that the model has",
    )
    verb.set_defaults(run=functools.partial(_with_modules, run))
    return verb


def _with_modules(run, arguments) -> Any:
    """Runs a verb with the user's modules imported, those of the current folder too."""
    sys.path.insert(0, "")
    try:
        for name in arguments.modules:
            importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"The module cannot be imported ({error}). Received: --import {name}"
        ) from error
    finally:
        sys.path.remove("")
    return run(arguments)


def _policy(arguments) -> dict:
    return {
        name: getattr(arguments, name)
        for name in ("rate", "weights", "normalization", "bias", "share", "skip_first")
    }


def _plan(arguments) -> None:
    from keras_ic import surgery

    _checked_output("-o", arguments.output, arguments.model)
    plan = surgery.plan(saving.load_model(arguments.model), **_policy(arguments))
    _write_json(arguments.output, plan.to_dict())
    print(plan)


def _rewrite(arguments) -> None:
    from keras_ic import surgery

    source = pathlib.Path(arguments.model)
    target = _target(source, arguments.output, "ic")
    saving.save_model(surgery.rewrite(saving.load_model(source), **_policy(arguments)), target)
    print(target)


def _fold(arguments) -> None:
    from keras_ic import surgery

    source = pathlib.Path(arguments.model)
    target = _target(source, arguments.output, "folded")
    model = saving.load_model(source)
    folded = surgery.fold(model)
    saving.save_model(folded, target)
    print(surgery.plan_fold(model))
    print(target)


def _target(source: pathlib.Path, output: str | None, suffix: str) -> pathlib.Path:
    target = pathlib.Path(output) if output else source.with_name(f"{source.stem}_{suffix}.keras")
    _checked_output("-o", target, source)
    if target.suffix != ".keras":
        raise ValueError(
            f"The name of a model file must end in `.keras`. Received: {str(target)!r}"
        )
    return target


def _checked_output(
    option: str, path: str | pathlib.Path | None, *sources: str | pathlib.Path
) -> None:
    """Refuses a file that the command itself reads, and one in a folder that is not there."""
    if path is None:
        return
    if pathlib.Path(path).resolve() in [pathlib.Path(source).resolve() for source in sources]:
        raise ValueError(
            f"What is written needs a file of its own; give another name with {option}. Received:"
            f" {str(path)!r}"
        )
    if not pathlib.Path(path).parent.is_dir():
        raise ValueError(
            f"There is no such folder to write to; make it first. Received: {str(path)!r}"
        )


def _inspect(arguments) -> None:
    from keras_ic.surgery import inspection

    _checked_output("-o", arguments.output, arguments.model)
    model = saving.load_model(arguments.model)
    _write_json(arguments.output, [dataclasses.asdict(row) for row in inspection.inspect(model)])
    print(inspection.text(model))


def _measure(arguments) -> None:
    from keras_ic import independence

    _checked_output("-o", arguments.output, arguments.model, arguments.data)
    _checked_output(
        "--plot",
        arguments.plot,
        arguments.model,
        arguments.data,
        *([arguments.output] if arguments.output else []),
    )
    if arguments.plot is not None:
        if not pathlib.Path(arguments.plot).suffix:
            raise ValueError(
                "The ending of `--plot` chooses the format of the figure; give it one, as .png."
                f" Received: {arguments.plot!r}"
            )
        try:
            needed("matplotlib.figure", "Matplotlib", "plot")
        except ImportError as error:
            raise ValueError(f"{error} Received: --plot {arguments.plot}") from error
    model, inputs = (
        saving.load_model(arguments.model),
        _inputs(arguments.data, arguments.standardize, arguments.data_dir),
    )
    report = independence.measure(
        model, inputs, arguments.steps, batch_size=arguments.batch, seed=arguments.seed, verbose=0
    )
    print(report)
    _write_json(arguments.output, report.to_dict())
    if arguments.plot is not None:
        with saving.replacing(arguments.plot) as new:
            report.plot(new)


def _report(arguments) -> None:
    from keras_ic import training

    training.report(arguments.folders, arguments.out)
    folder = pathlib.Path(arguments.out)
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"{folder / 'table.md'}, {folder / 'summary.json'} and the figures beside them")


def _inputs(name: str, standardize: bool, data_dir: str | None):
    import numpy as np

    from keras_ic.training import datasets

    if name in datasets.CLASSES:
        try:
            (train, _), (test, _) = datasets.load(name, data_dir)
        except ImportError as error:
            raise ValueError(f"{error} Received: --data {name}") from error
        mean, std = datasets.channel_statistics(train) if standardize else (0, 1)
        return ((test - mean) / std).astype("float32")
    if not name.endswith(".npz"):
        raise ValueError(
            f"`--data` must be {', '.join(datasets.CLASSES)} or a file that ends in `.npz`."
            f" Received: {name!r}"
        )
    if standardize:
        raise ValueError(
            f"`--standardize` is for {', '.join(datasets.CLASSES)}; standardize the array in the"
            f" file yourself. Received: {name!r}"
        )
    try:
        with open(name, "rb") as file, np.load(file) as archive:
            array = archive["x"]
    except FileNotFoundError:
        raise
    # What is no archive, or is a damaged one, makes NumPy and zipfile raise nearly anything.
    except Exception as error:
        raise ValueError(
            f"The file must be a sound `.npz` archive with an array named x. Received: {name!r}"
        ) from error
    if array.ndim == 0 or array.dtype.kind not in "uifb":
        raise ValueError(
            f"The array x in the file must hold numbers, one example a row. Received: {array.dtype}"
            f" of shape {array.shape} in {name!r}"
        )
    return array


def _write_json(path: str | None, value) -> None:
    if path is None:
        return
    text = json.dumps(value, indent=2) + "\n"
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
        # A pipe or a device, as /dev/stdout, is not to be replaced.
        pathlib.Path(path).write_text(text, encoding="utf-8")
        return
    with saving.replacing(path) as new:
        new.write_text(text, encoding="utf-8")
