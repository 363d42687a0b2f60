"""The command line, `keras-ic` and `python -m keras_ic`. Each verb is a thin call of one public
function.

Exit codes: 0 done; 2 the user can fix it (one line on stderr); 75 stopped by a signal with
everything saved; 1 anything else.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import keras

from keras_ic import measure_verb, model_verbs, training
from keras_ic.training import command as training_command
from keras_ic.training.datasets import MissingDataError
from keras_ic.tuning import command as tuning_command
from keras_ic.utils.exit_codes import ExitCode
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
    model_verbs.add(verbs)
    measure_verb.add(verbs)
    training_command.add(verbs)
    _add_report(verbs)
    tuning_command.add(verbs)
    return parser


def _add_report(verbs: Any) -> None:
    what = "make a table and figures of the records found in folders"
    verb = verbs.add_parser("report", help=what, description=what)
    verb.add_argument(
        "folders", nargs="+", metavar="DIR", help="folders of runs, or folders that contain them"
    )
    verb.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="where to write table.md, summary.json and the figures",
    )
    verb.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    training.report(arguments.folders, arguments.out)
    folder = pathlib.Path(arguments.out)
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"{folder / 'table.md'}, {folder / 'summary.json'} and the figures beside them")
