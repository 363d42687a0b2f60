"""Checks of arguments, each ending in one clear error that says what was received."""

import difflib
import math
import numbers
import os
from collections.abc import Callable, Iterable
from typing import Any

import keras


def checked_model(model: Any) -> keras.Model:
    """`model`, if it is a Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a keras.Model. Received: model={model!r} (of type"
            f" {type(model).__name__})"
        )
    return model


def checked_path(name: str, value: Any) -> str:
    """`value` as a string, if it is a path."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise ValueError(
        f"`{name}` must be a path, a string or os.PathLike. Received: {name}={value!r} (of type"
        f" {type(value).__name__})"
    )


def checked_real(name: str, value: Any, wanted: str, allowed: Callable[[float], bool]) -> float:
    """`value` as a Python float, if it is a real number (numpy's scalars count, booleans and nan do
    not) and `allowed(value)`.
    """
    is_number = isinstance(value, numbers.Real) or (
        getattr(value, "shape", None) == () and hasattr(value, "__float__")
    )
    of_numbers = not isinstance(value, bool) and any(
        kind in str(getattr(value, "dtype", "float")) for kind in ("float", "int")
    )
    if is_number and of_numbers:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and allowed(number):
            return number
    raise ValueError(
        f"`{name}` must be {wanted}. Received: {name}={value!r} (of type {type(value).__name__})"
    )


def checked_rate(name: str, value: Any, or_else: str = "") -> float:
    """`value` as a Python float, if it is a probability to drop."""
    wanted = (
        "a number in [0, 1), the probability to drop a value (1 minus the keep"
        f" probability){or_else}"
    )
    return checked_real(name, value, wanted, lambda value: 0 <= value < 1)


def checked_int(
    name: str, value: Any, wanted: str, allowed: Callable[[int], bool] = lambda value: True
) -> int:
    """`value` as a Python int, if it is an integer (numpy's count, booleans do not) and
    `allowed(value)`.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and allowed(int(value)):
        return int(value)
    raise ValueError(
        f"`{name}` must be {wanted}. Received: {name}={value!r} (of type {type(value).__name__})"
    )


def positive_int(name: str, value: Any) -> int:
    """`value` as a Python int, if it is an integer above 0."""
    return checked_int(name, value, "an integer above 0", lambda value: value > 0)


def several_int(name: str, value: Any) -> int:
    """`value` as a Python int, if it is an integer above 1."""
    return checked_int(name, value, "an integer above 1", lambda value: value > 1)


def checked_seed(name: str, value: Any, bits: int = 31) -> int:
    """`value` as a Python int, if it is a seed of so many bits."""
    return checked_int(
        name, value, f"an integer in [0, 2**{bits})", lambda value: 0 <= value < 2**bits
    )


def positive_real(name: str, value: Any) -> float:
    """`value` as a Python float, if it is a number above 0."""
    return checked_real(name, value, "a number above 0", lambda value: value > 0)


def natural_int(name: str, value: Any) -> int:
    """`value` as a Python int, if it is an integer of 0 or more."""
    return checked_int(name, value, "an integer of 0 or more", lambda value: value >= 0)


def natural_real(name: str, value: Any) -> float:
    """`value` as a Python float, if it is a number of 0 or more."""
    return checked_real(name, value, "a number of 0 or more", lambda value: value >= 0)


def checked_share(name: str, value: Any) -> float:
    """`value` as a Python float, if it is a number from 0 to below 1."""
    return checked_real(name, value, "a number in [0, 1)", lambda value: 0 <= value < 1)


def checked_momentum(name: str, value: Any) -> float:
    """`value` as a Python float, if it is a number in [0, 1]."""
    return checked_real(name, value, "a number in [0, 1]", lambda value: 0 <= value <= 1)


def checked_bool(name: str, value: Any) -> bool:
    """`value`, if it is True or False."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise ValueError(
        f"`{name}` must be True or False. Received: {name}={value!r} (of type"
        f" {type(value).__name__})"
    )


def did_you_mean(value: Any, choices: Iterable[str]) -> str:
    """The end of a sentence that names the nearest of the choices, if one is near."""
    near = difflib.get_close_matches(str(value), list(choices), 1)
    return f"; did you mean {near[0]!r}?" if near else "."


def checked_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """`value`, if it is one of the choices; else an error with the nearest."""
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return value
    raise ValueError(
        f"`{name}` must be one of {', '.join(map(repr, choices))}{did_you_mean(value, choices)}"
        f" Received: {name}={value!r}"
    )
