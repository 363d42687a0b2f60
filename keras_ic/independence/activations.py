"""What weight layers and normalizations read while a model runs: found, watched and sampled."""

import functools
from typing import Any

import keras
import numpy as np
from keras import layers, ops

# A weight layer is not handed the mask of what it reads.
from keras.src.backend.common.masking import get_keras_mask

from keras_ic import kernels
from keras_ic.surgery.graph import is_readable, read
from keras_ic.surgery.layer_traits import (
    WEIGHT_LAYERS,
    ZERO_PADDING,
    channels_first,
    is_batch_normalization,
    is_ic,
    time_axes,
    unwrap,
)
from keras_ic.surgery.watching import replaced_calls
from keras_ic.utils.keras_internals import sublayers


def watched_layers(model: keras.Model) -> tuple[list, list]:
    """The weight layers of any built model, and its IC and BatchNormalization layers; a wrapped one
    is its outermost wrapper.

    What wrappers and recurrent layers call inside, step by step, cannot be watched.
    """
    inside = {
        id(inner)
        for layer in sublayers(model)
        if isinstance(layer, (layers.Wrapper, layers.RNN))
        for inner in sublayers(layer)[1:]
    }
    outer = [layer for layer in sublayers(model) if id(layer) not in inside]
    weight_layers = [layer for layer in outer if isinstance(unwrap(layer), WEIGHT_LAYERS)]
    normalizations = [
        layer for layer in outer if is_ic(unwrap(layer)) or is_batch_normalization(layer)
    ]
    return weight_layers, normalizations


def paths(model: keras.Model) -> dict[int, str]:
    """The path of every layer inside the model, `outer/inner/name`, by the layer's `id`; of the
    first place for a shared one.
    """
    found: dict[int, str] = {}

    def visit(layer, prefix):
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            if id(inner) not in found:
                found[id(inner)] = f"{prefix}{inner.name}"
                visit(inner, f"{prefix}{inner.name}/")

    visit(model, "")
    return found


def input_axes(layer, rank: int) -> list[int]:
    """The axes of an input of this rank along which a weight layer mixes its channels: most have
    one, an `EinsumDense` may have several.
    """
    inner = unwrap(layer)
    if not isinstance(inner, layers.EinsumDense):
        return [1 + time_axes(layer) if channels_first(inner) else rank - 1]
    letters, _, rest = inner.equation.replace(" ", "").partition(",")
    kernel, _, output = rest.partition("->")
    before, dots, after = letters.partition("...")
    # From the end, where dots stand for the axes before.
    places = [
        *enumerate(before, 0 if dots else rank - len(before)),
        *enumerate(after, rank - len(after)),
    ]
    return [place for place, letter in places if letter in kernel and letter not in output] or [
        rank - 1
    ]


def paddings(model: keras.Model) -> dict[int, list[tuple]]:
    """The borders `(before, after)` of each spatial axis that a `ZeroPadding` layer put around what
    a weight layer reads, by the `id` of the latter.

    Only where each call of the weight layer stands behind the same one, in a Sequential or
    Functional model. Padding that is not a layer of its own, as `padding="same"`, is no part of an
    input.
    """
    if not is_readable(model):
        return {}
    found: dict[int, set] = {}
    for graph, call, _ in read(model).walk():
        if isinstance(unwrap(call.operation), WEIGHT_LAYERS):
            above = graph.producer(call.inputs[0])
            found.setdefault(id(call.operation), set()).add(
                above.operation if above and isinstance(above.operation, ZERO_PADDING) else None
            )
    borders = {}
    for key, layers_above in found.items():
        padding, *others = layers_above
        if padding is not None and not others:
            borders[key] = (
                [padding.padding]
                if isinstance(padding, layers.ZeroPadding1D)
                else list(padding.padding)
            )
    return borders


class Sample:
    """What to record of which layers.

    Args:
        weight_layers: The layers of which rows of the inputs are sampled.
        normalizations: The layers of which the moments of the inputs are taken.
        paddings: What `paddings` gives for the model.
        channels: How many channels of each weight layer's input to look at, at most; which ones
            follows from `seed`.
        rows: How many rows of each weight layer's input to look at in a batch, at most.
        seed: An integer.
    """

    def __init__(
        self,
        weight_layers: list,
        normalizations: list,
        paddings: dict,
        channels: int,
        rows: int,
        seed: int,
    ):
        self.weight_layers = weight_layers
        self.paddings = paddings
        self.normalizations = normalizations
        self.channels = channels
        self.rows = rows
        self.seed = seed
        # By the layer's position in `weight_layers`, in the order in which the layers run.
        self.widths: dict[int, int] = {}

    def chosen(self, index: int) -> np.ndarray:
        """Which channels of the layer's input are looked at."""
        width = self.widths[index]
        random = np.random.default_rng([self.seed, index])
        return np.sort(random.choice(width, min(width, self.channels), replace=False)).astype(
            "int32"
        )

    def rows_of(self, index: int, draws: Any, inputs: Any, mask: Any) -> Any:
        """`(rows, channels + 1)`: sampled values of one call, and 1 where they count, 0 where a
        mask excludes them.
        """
        layer = self.weight_layers[index]
        axes = input_axes(layer, len(inputs.shape))
        if id(layer) in self.paddings:
            # The zeros of padding are the same in all channels, which would pass for information
            # that they share.
            inputs = self._without_border(inputs, axes, self.paddings[id(layer)])
        others = [axis for axis in range(len(inputs.shape)) if axis not in axes]
        self.widths[index] = width = int(np.prod([inputs.shape[axis] for axis in axes]))
        order = others + axes
        flat = ops.reshape(
            inputs if order == sorted(order) else ops.transpose(inputs, order), (-1, width)
        )
        chosen = self._positions(ops.shape(flat)[0], draws)
        values = ops.take(ops.take(flat, chosen, axis=0), self.chosen(index), axis=1)
        if mask is None or list(range(len(mask.shape))) != others[: len(mask.shape)]:
            counts = ops.ones_like(values[:, :1], dtype="float32")
        else:
            mask = ops.reshape(
                ops.cast(mask, "float32"),
                (*ops.shape(mask), *[1] * (len(others) - len(mask.shape))),
            )
            mask = ops.broadcast_to(mask, [ops.shape(inputs)[axis] for axis in others])
            counts = ops.take(ops.reshape(mask, (-1, 1)), chosen, axis=0)
        return ops.concatenate([ops.cast(values, "float32"), counts], axis=1)

    @staticmethod
    def _without_border(inputs, axes, borders):
        cut = [slice(None)] * len(inputs.shape)
        spatial = [axis for axis in range(1, len(inputs.shape)) if axis not in axes]
        if len(spatial) != len(borders):
            # The layer sums over a padded axis too, so that the zeros are part of its features.
            return inputs
        for axis, (before, after) in zip(spatial, borders, strict=True):
            cut[axis] = slice(before, -after if after else None)
        return inputs[tuple(cut)]

    def _positions(self, total, draws):
        """All of `total` positions where they are not too many, else one out of each of `self.rows`
        runs of equal length.
        """
        count = min(total, self.rows) if isinstance(total, int) else ops.minimum(total, self.rows)
        run = total // count
        spare = total - count * run
        start = ops.minimum(_floor(draws[-1], spare + 1), spare)
        return (
            start
            + ops.arange(count, dtype="int32") * run
            + ops.minimum(_floor(draws[:count], run), run - 1)
        )


def _floor(draws, factor):
    return ops.cast(draws * ops.cast(factor, "float32"), "int32")


class Recorder(keras.Model):
    """Runs a model in one mode; its outputs are the sampled rows of each weight layer and, at
    inference, the moments of each normalization.

    It takes `{"inputs": inputs of the model, "draws": (rows + 1,) uniform numbers in [0, 1)}`. It
    gives, by the layer's position in the sample's lists, `{"weight_layers": {key: (rows, channels +
    1)}, "normalizations": {key: (calls, 3, channels)}}`, the latter of mean, variance and number of
    values. A layer that is not called has no entry.

    Nothing that the model assigns meanwhile, to its moving statistics or its random states, is
    kept.
    """

    def __init__(self, model: keras.Model, sample: Sample, training: bool):
        super().__init__(name="recorder", autocast=False)
        self.model = model
        self.sample = sample
        self.in_training = training
        self.built = True
        # Compiled by XLA only where nothing else compiles.
        self.jit_compile = keras.backend.backend() == "jax"

    def call(self, inputs):
        """The records."""
        rows: dict[str, list] = {}
        moments: dict[str, list] = {}
        calls = {}
        for index, layer in enumerate(self.sample.weight_layers):
            record = functools.partial(self.sample.rows_of, index, inputs["draws"])
            calls[layer] = self._before(layer, rows.setdefault(str(index), []), record)
        for index, layer in enumerate(() if self.in_training else self.sample.normalizations):
            calls[layer] = self._before(
                layer, moments.setdefault(str(index), []), functools.partial(_moments, layer)
            )
        # The model's own values, lest JAX takes them for constants.
        values = [(variable, variable.value) for variable in self.model.variables]
        with replaced_calls(calls), keras.StatelessScope(values):
            self.model(inputs["inputs"], training=self.in_training)
        return {
            "weight_layers": {
                key: ops.concatenate(records) for key, records in rows.items() if records
            },
            "normalizations": {
                key: ops.stack(records) for key, records in moments.items() if records
            },
        }

    @staticmethod
    def _before(layer, records, record):
        own = layer.call

        def call(*args, **kwargs):
            inputs = args[0] if args else kwargs["inputs"]
            mask = kwargs.get("mask")
            records.append(record(inputs, get_keras_mask(inputs) if mask is None else mask))
            return own(*args, **kwargs)

        return call


def _moments(layer, inputs, mask):
    """`(3, channels)`: mean, variance and number of values."""
    axis = unwrap(layer).axis
    axis = axis if axis < 0 else axis + time_axes(layer)
    valid = (
        None
        if mask is None
        else ops.reshape(
            ops.cast(mask, "bool"), (*ops.shape(mask), *[1] * (len(inputs.shape) - len(mask.shape)))
        )
    )
    # TensorFlow adds up values one by one, which costs float32 half of its digits in a batch of
    # images.
    wide = ops.cast(inputs, "float64") if keras.backend.backend() == "tensorflow" else inputs
    mean, variance, count = kernels.moments(wide, axis, valid)
    return ops.stack(
        [mean, variance, ops.broadcast_to(ops.cast(count, mean.dtype), ops.shape(mean))]
    )
