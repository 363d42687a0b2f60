"""Copies of layers and operations: of the same configuration, without weights, in no graph.

Keras copies a layer by its configuration, in which a function is a name. Another function may have
the same name, and a lambda or a `functools.partial` has none. So the configuration is asked of a
double of the layer, in which `_StandIn`s take the places of such objects; from a `_StandIn`, Keras
makes the very object again.
"""

import contextvars
import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_ic.surgery.graph import is_readable
from keras_ic.utils.keras_internals import (
    SafeModeScope,
    blank_double,
    held_by,
    sublayers,
    without_calls,
)

_OBJECTS: contextvars.ContextVar[list] = contextvars.ContextVar("objects")


class _StandIn:
    """Stands for an object in a configuration."""

    def __init__(self, key: int):
        self.key = key

    def __call__(self, *args, **kwargs):
        raise NotImplementedError  # What is callable is taken for a function.

    def get_config(self):
        return {"key": self.key}

    @classmethod
    def from_config(cls, config):
        made = _OBJECTS.get()[config["key"]]
        if not isinstance(made, keras.initializers.Initializer):
            return made
        try:
            # One without a seed draws the same numbers whenever it is called.
            return type(made).from_config(made.get_config())
        except Exception:  # Whatever a class of the user's own raises.
            return made


def copy_operation(operation, copy_model: Callable):
    """A new layer or operation of the same configuration and name, without weights yet, in no
    graph; see `copy_layer`.
    """
    if not isinstance(operation, keras.layers.Layer):
        # Operations have no state but their arguments, which not all of them can give back as a
        # configuration.
        return without_calls(operation)
    return copy_layer(operation, {}, copy_model)


def copy_layer(layer, changes: dict, copy_model: Callable):
    """A new layer from the configuration of `layer`, with the very functions, regularizers and
    constraints that it has.

    Args:
        layer: A layer.
        changes: What to change in its configuration; in that of the layer inside
            `TimeDistributed`.
        copy_model: Makes a copy of a Sequential or Functional model inside the layer.
    """
    if is_readable(layer):
        return copy_model(layer)
    objects: list = []
    token = _OBJECTS.set(objects)
    try:
        # The configuration comes from the model in memory, not from a file.
        scope = {"_StandIn": _StandIn, **_named_functions(layer)}
        with SafeModeScope(False), keras.saving.custom_object_scope(scope):
            config = changed = _configuration(layer, objects, copy_model)
            inner = layer
            while isinstance(inner, keras.layers.TimeDistributed) and changes:
                inner, changed = inner.layer, changed["layer"]["config"]
            changed.update(changes)
            new = type(layer).from_config(config)
    except Exception as error:  # Whatever a class of the user's own raises.
        raise ValueError(
            f"Layer {layer.name!r} cannot be rebuilt from its configuration; its class needs"
            " `get_config` and `from_config` that give back every argument of its constructor."
            f" Received: layer of type {type(layer).__name__}, and:"
            f" {' '.join(str(error).split())[:300]}"
        ) from error
    finally:
        _OBJECTS.reset(token)
    _share_functions(layer, new, set(changes))
    return new


def _configuration(layer, objects: list, copy_model: Callable) -> dict:
    double = _Doubles(objects, copy_model).of(layer)
    try:
        return _resolved({**double.get_config()}, objects)
    except Exception:  # One of a class of the user's own, which wants a function's name.
        return {**layer.get_config()}


class _Doubles:
    """Doubles of layers, to be asked for their configuration."""

    def __init__(self, objects: list, copy_model: Callable):
        self._objects = objects
        self._copy_model = copy_model
        self._made: dict[int, Any] = {}

    def of(self, layer):
        """A double of the layer, and of the layers in it."""
        if id(layer) not in self._made:
            double = self._made[id(layer)] = blank_double(layer)
            for name, value in held_by(layer).items():
                if not callable(getattr(type(layer), name, None)):
                    vars(double)[name] = self._in_place_of(value)
        return self._made[id(layer)]

    def _in_place_of(self, value):
        if isinstance(value, keras.Model):
            return self._stand_in(self._copy_model(value)) if is_readable(value) else value
        if isinstance(value, keras.layers.Layer):
            return self.of(value)
        if isinstance(value, (list, tuple)) and any(
            isinstance(part, keras.layers.Layer) or _is_function(part) for part in value
        ):
            return [self._in_place_of(part) for part in value]
        if isinstance(value, dict) and any(map(_is_function, value.values())):
            return {key: self._in_place_of(part) for key, part in value.items()}
        return self._stand_in(value) if _is_function(value) else value

    def _stand_in(self, value):
        self._objects.append(value)
        return _StandIn(len(self._objects) - 1)


def _is_function(value) -> bool:
    """Whether it is a function, or an object that is used as one: an initializer, a regularizer, a
    constraint.
    """
    return callable(value) and not isinstance(value, (type, keras.Operation, keras.DTypePolicy))


def _resolved(config, objects: list):
    """The configuration with the objects that it holds as they are."""
    if isinstance(config, _StandIn):
        return objects[config.key]
    if isinstance(config, dict):
        return {key: _resolved(value, objects) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_resolved(value, objects) for value in config)
    return config


def _named_functions(layer) -> dict[str, Any]:
    """The functions in the layer that have a name: some layers copy those inside by name."""
    return {
        value.__name__: value
        for part in sublayers(layer)
        for value in held_by(part).values()
        if inspect.isfunction(value)
    }


def _share_functions(old, new, changed: set[str]) -> None:
    """Gives the new layer, and those inside, the functions of the old ones that they were
    constructed with: `Bidirectional` copies the layer inside by names once more.
    """
    for given, taken in zip(sublayers(old), sublayers(new), strict=False):
        kinds: Any = type(given).__mro__
        arguments = {
            name
            for kind in kinds
            if "__init__" in vars(kind)
            for name in inspect.signature(kind.__init__).parameters
        }
        for name, value in held_by(given).items():
            if (
                name.lstrip("_") in arguments - changed
                and type(given) is type(taken)
                and inspect.isfunction(value)
                and name in vars(taken)
            ):
                vars(taken)[name] = value
