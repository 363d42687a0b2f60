"""The verbs of the command line that read a model file: `plan`, `rewrite`, `fold` and `inspect`;
`measure` has a file of its own.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from keras_ic import saving
from keras_ic.surgery import fold, inspection, plan, plan_fold, rewrite

VERBS = {
    "plan": ("show what `rewrite` would do to a model", "also write the plan as JSON"),
    "rewrite": (
        "rewrite a model into its IC form",
        "where to write it; defaults to MODEL_ic.keras",
    ),
    "fold": (
        "fold normalizations into weights, for inference",
        "where to write it; defaults to MODEL_folded.keras",
    ),
    "inspect": (
        "list weight layers, IC layers and BatchNormalization layers of a model",
        "also write the list as JSON",
    ),
}
POLICY = {
    "rate": (0.05, "probability to drop a value, from 0 to below 1"),
    "weights": (
        "fresh",
        "fresh, copy, or preserve, which keeps the function of the model at inference",
    ),
    "normalization": ("remove", "remove or keep the BatchNormalization layers"),
    "bias": ("repair", "repair or leave layers that lose their BatchNormalization"),
}
SWITCHES = {
    "share": "give each weight layer an IC layer of its own",
    "skip_first": "put IC layers on the raw input too",
}


def add(verbs: Any) -> None:
    """Adds the verbs to a parser's."""
    runs = {"plan": _plan, "rewrite": _rewrite, "fold": _fold, "inspect": _inspect}
    for name, (what, output) in VERBS.items():
        verb = add_model_verb(verbs, name, runs[name], what, output)
        if name in ("plan", "rewrite"):
            _add_policy(verb)


def _add_policy(verb: argparse.ArgumentParser) -> None:
    for name, (default, text) in POLICY.items():
        verb.add_argument(
            f"--{name}", type=type(default), default=default, help=f"{text} (default: %(default)s)"
        )
    for name, text in SWITCHES.items():
        flag = f"--no-{name.replace('_', '-')}"
        verb.add_argument(flag, dest=name, action="store_false", help=text)


def _policy(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in (*POLICY, *SWITCHES)}


def _plan(arguments: argparse.Namespace) -> None:
    check_output("-o", arguments.output, arguments.model)
    planned = plan(saving.load_model(arguments.model), **_policy(arguments))
    write_json(arguments.output, planned.to_dict())
    print(planned)


def _rewrite(arguments: argparse.Namespace) -> None:
    target = _target(arguments, "ic")
    saving.save_model(rewrite(saving.load_model(arguments.model), **_policy(arguments)), target)
    print(target)


def _fold(arguments: argparse.Namespace) -> None:
    target = _target(arguments, "folded")
    model = saving.load_model(arguments.model)
    saving.save_model(fold(model), target)
    print(plan_fold(model))
    print(target)


def _inspect(arguments: argparse.Namespace) -> None:
    check_output("-o", arguments.output, arguments.model)
    model = saving.load_model(arguments.model)
    write_json(arguments.output, [dataclasses.asdict(row) for row in inspection.inspect(model)])
    print(inspection.text(model))


def _target(arguments: argparse.Namespace, suffix: str) -> pathlib.Path:
    source = pathlib.Path(arguments.model)
    target = pathlib.Path(arguments.output or source.with_name(f"{source.stem}_{suffix}.keras"))
    check_output("-o", target, source)
    return saving.checked_name(target)


def add_model_verb(
    verbs: Any, name: str, run: Callable, what: str, output: str
) -> argparse.ArgumentParser:
    """Adds a verb that reads a model file.

    Args:
        verbs: What `add_subparsers` of the parser gave.
        name: String, the verb.
        run: Function of the parsed arguments.
        what: String, the description of the verb.
        output: String, the help of `--output`.
    """
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


def _with_modules(run: Callable, arguments: argparse.Namespace) -> Any:
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


def check_output(option: str, path: Any, *sources: Any) -> None:
    """Refuses a file that the command itself reads, and one in a folder that is not there."""
    if path is None:
        return
    path = pathlib.Path(path)
    if path.resolve() in [pathlib.Path(source).resolve() for source in sources]:
        raise ValueError(
            f"What is written needs a file of its own; give another name with {option}. Received:"
            f" {str(path)!r}"
        )
    if not path.parent.is_dir():
        raise ValueError(
            f"There is no such folder to write to; make it first. Received: {str(path)!r}"
        )


def write_json(path: str | None, value: Any) -> None:
    """Writes a value as JSON, if there is a path to write it to."""
    if path is None:
        return
    text = json.dumps(value, indent=2) + "\n"
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
        # A pipe or a device, as /dev/stdout, is not to be replaced.
        pathlib.Path(path).write_text(text, encoding="utf-8")
        return
    with saving.replacing(path) as new:
        new.write_text(text, encoding="utf-8")
