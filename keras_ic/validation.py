"""Checks of arguments, each ending in one clear error that says what was received."""

import difflib
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import keras


def checked_model(model: Any) -> keras.Model:
    """`model`, if it is a Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a keras.Model. Received: model={model!r} (of type {type(model).__name__})")
    return model


def checked_real(name: str, value: Any, wanted: str, allowed: Callable[[float], bool]) -> float:
    """`value` as a Python float, if it is a real number (numpy's scalars count, booleans and nan do not) and `allowed(value)`."""
    is_number = isinstance(value, numbers.Real) or (getattr(value, "shape", None) == () and hasattr(value, "__float__"))
    is_boolean = isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"
    if is_number and not is_boolean:
        number = float(value)
        if math.isfinite(number) and allowed(number):
            return number
    raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r} (of type {type(value).__name__})")


def checked_int(name: str, value: Any, wanted: str, allowed: Callable[[int], bool] = lambda value: True) -> int:
    """`value` as a Python int, if it is an integer (numpy's count, booleans do not) and `allowed(value)`."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and allowed(int(value)):
        return int(value)
    raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r} (of type {type(value).__name__})")


def checked_bool(name: str, value: Any) -> bool:
    """`value`, if it is True or False."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r} (of type {type(value).__name__})")


def did_you_mean(value: Any, choices: Iterable[str]) -> str:
    """The end of a sentence that names the nearest of the choices, if one is near."""
    near = difflib.get_close_matches(str(value), list(choices), 1)
    return f"; did you mean {near[0]!r}?" if near else "."


def checked_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """`value`, if it is one of the choices; else an error with the nearest."""
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return value
    raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}{did_you_mean(value, choices)} Received: {name}={value!r}")
