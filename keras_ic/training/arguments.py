"""The fields of `TrainingConfig` as arguments of a command line, and back."""

import argparse
import dataclasses
import shlex
import types
import typing
from collections.abc import Iterable
from typing import Any

from keras_ic.applications.orders import ORDERS
from keras_ic.training.config import TrainingConfig
from keras_ic.training.presets import preset_of

FIELDS = {field.name: field for field in dataclasses.fields(TrainingConfig)}
METAVARS = {int: "N", float: "X", str: "NAME"}


def add_fields(parser: Any, names: Iterable[str] = tuple(FIELDS), is_grid: bool = True) -> None:
    """Adds the fields of these names to a parser. What is not given has no attribute.

    Args:
        parser: The `argparse.ArgumentParser`.
        names: Iterable of names of fields. Defaults to all.
        is_grid: Boolean, whether an argument takes several values. Defaults to `True`.
    """
    for name in names:
        field = FIELDS[name]
        flag, kind = f"--{name.replace('_', '-')}", _kind(field.type)
        text = described(name)
        if kind is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(flag, action=action, default=argparse.SUPPRESS, help=text)
            continue
        several = {"nargs": "+"} if is_grid else {}
        metavar = "X,X" if name == "rates" else METAVARS[kind]
        parser.add_argument(
            flag,
            type=_rates if name == "rates" else kind,
            metavar=metavar,
            default=argparse.SUPPRESS,
            help=text,
            **several,
        )


def described(name: str) -> str:
    """The choices of a field, what it is, and its default."""
    field = FIELDS[name]
    default = "" if field.default is None or field.default is False else f" ({field.default})"
    parts = (", ".join(field.metadata["choices"]), field.metadata["help"])
    return ": ".join(filter(None, parts)).replace("%", "%%") + default


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that were given, with their values."""
    return {name: getattr(arguments, name) for name in FIELDS if hasattr(arguments, name)}


def command_line(config: TrainingConfig) -> str:
    """The command that runs a configuration."""
    usual = preset_of(config.data).to_dict()
    words = ["keras-ic", "train"]
    for name, value in config.to_dict().items():
        always = name in ("data", "model", "order", "epochs", "seed")
        if (not always and value == usual[name]) or value is None:
            continue
        # The orders without IC layers have no rate; `rates` makes its own.
        if name == "rate" and (config.rates is not None or not ORDERS[config.order].has_ic):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            text = ",".join(map(repr, value)) if name == "rates" else str(value)
            words += [f"--{flag}", text]
    return shlex.join(words)


def _kind(annotation: Any) -> type:
    """The type of a field, whether it may be None or not; of the rates, float."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        annotation = typing.get_args(annotation)[0]
    return float if typing.get_origin(annotation) is tuple else annotation


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
