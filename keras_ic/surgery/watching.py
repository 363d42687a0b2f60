"""Looking at what layers read while a model runs, without a change to the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def replaced_calls(calls: dict[object, Callable]) -> Iterator[None]:
    """Within the block, each layer of `calls` runs the function given for it instead of its own
    `call`.

    The functions are put on the instances alone, past Keras's tracking of attributes, and taken off
    again however the block ends.
    """
    own = {layer: vars(layer).get("call") for layer in calls}
    try:
        for layer, call in calls.items():
            vars(layer)["call"] = call
        yield
    finally:
        for layer, before in own.items():
            vars(layer).pop("call", None)
            if before is not None:
                vars(layer)["call"] = before
