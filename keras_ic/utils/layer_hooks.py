"""Recording what layers read while a model runs, without a change to the model."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ic import kernels
from keras_ic.kernels.shapes import mask_of_rank
from keras_ic.utils.keras_internals import mask_of

# `(inputs, mask, draws, own)` to `(record, outputs)`; `own()` runs the layer's own call.
Look = Callable[[Any, Any, Any, Callable], tuple[Any, Any]]


@contextmanager
def replaced_calls(calls: dict[Any, Callable]) -> Iterator[None]:
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


class Recorder(keras.Model):
    """Runs a model in one mode; its outputs are what is recorded of the inputs of some layers.

    It takes the inputs of the model, or `{"inputs": inputs of the model, "draws": numbers that each
    look gets}` if `drawn`. It gives `{key: [record of each call]}`; a layer that is not called has
    no entry. Nothing that the model assigns meanwhile, to its moving statistics or its random
    states, is kept.

    Args:
        model: A built `keras.Model`.
        looks: Dictionary from a string to `(layer, look)`. `look(inputs, mask, draws, own)` returns
            the record, and the outputs of the layer, which `own()` computes as the layer does.
        training: Boolean, whether the model runs as in training.
        drawn: Boolean, whether there are draws. Defaults to `False`.
    """

    def __init__(
        self,
        model: keras.Model,
        looks: Mapping[str, tuple[keras.layers.Layer, Look]],
        training: bool,
        drawn: bool = False,
    ):
        super().__init__(name="recorder", autocast=False)
        self.model = model
        # A tuple, since Keras tracks the layers of a dictionary.
        self.looks = tuple((key, layer, look) for key, (layer, look) in looks.items())
        self.in_training = training
        self.drawn = drawn
        self.built = True
        # Compiled by XLA only where nothing else compiles: one compilation for each size of a batch
        # costs more than it gains.
        self.jit_compile = keras.backend.backend() == "jax"

    def call(self, batch):
        """The records."""
        inputs, draws = (batch["inputs"], batch["draws"]) if self.drawn else (batch, None)
        records: dict[str, list] = {}
        calls = {
            layer: _looking(layer, look, draws, functools.partial(_add, records, key))
            for key, layer, look in self.looks
        }
        # The model's own values: JAX would take them for constants.
        values = [(variable, variable.value) for variable in self.model.variables]
        with replaced_calls(calls), keras.StatelessScope(values):
            self.model(inputs, training=self.in_training)
        return records


def _add(records: dict[str, list], key: str, record: Any) -> None:
    records.setdefault(key, []).append(record)


def _looking(layer, look: Look, draws: Any, add: Callable) -> Callable:
    own = layer.call

    def call(*args, **kwargs):
        inputs = args[0] if args else kwargs["inputs"]
        mask = kwargs.get("mask")
        # A weight layer is not handed the mask of what it reads.
        mask = mask_of(inputs) if mask is None else mask
        record, outputs = look(inputs, mask, draws, functools.partial(own, *args, **kwargs))
        add(record)
        return outputs

    return call


def input_moments(inputs: Any, mask: Any, axis: int) -> Any:
    """`(3, channels)`: mean, biased variance and number of values of what a layer reads.

    Args:
        inputs: Tensor of any rank.
        mask: Boolean tensor of the first axes of the inputs, or None.
        axis: Integer, the channel axis.
    """
    valid = mask_of_rank(mask, len(inputs.shape))
    return stacked_moments(*kernels.moments(inputs, axis, valid))


def stacked_moments(mean: Any, variance: Any, count: Any) -> Any:
    """`(3, channels)` from mean and variance `(channels,)` and the number of values, be it one."""
    return ops.stack(
        [mean, variance, ops.broadcast_to(ops.cast(count, mean.dtype), ops.shape(mean))]
    )


class PooledMoments:
    """Mean and biased variance of several sets of values together, in float64 (Chan et al., 1979).

    Attributes:
        mean: Array `(channels,)`.
        variance: Array `(channels,)`.
        count: Array `(channels,)`, the number of values.
    """

    def __init__(self) -> None:
        self.mean: Any = 0.0
        self.variance: Any = 0.0
        self.count: Any = 0.0

    def add(self, moments: Any) -> None:
        """Takes in a set of values by its `(3, channels)` moments.

        In the scope of a strategy, Keras joins those of all replicas to `(3 * replicas, channels)`.
        """
        moments = np.asarray(moments, "float64")
        for each in moments.reshape(-1, 3, moments.shape[-1]):
            self._add(*each)

    def _add(self, mean: np.ndarray, variance: np.ndarray, count: np.ndarray) -> None:
        # What is not finite stays so; whoever reads it reports it.
        with np.errstate(all="ignore"):
            self.count = self.count + count
            share = count / np.maximum(self.count, 1)
            difference = mean - self.mean
            self.variance = (
                self.variance
                + share * (variance - self.variance)
                + share * (1 - share) * difference**2
            )
            self.mean = self.mean + share * difference
