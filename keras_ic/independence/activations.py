"""What weight layers and normalizations read while a model runs: found, watched and sampled."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_ic.kernels.shapes import mask_of_rank
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
from keras_ic.utils.keras_internals import direct_sublayers, sublayers
from keras_ic.utils.layer_hooks import input_moments


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
        for inner in direct_sublayers(layer):
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

    Only where each call of the weight layer comes after the same one, in a Sequential or
    Functional model. Padding that is not a layer of its own, as `padding="same"`, is no part of an
    input.
    """
    if not is_readable(model):
        return {}
    found: dict[int, set] = {}
    for graph, call, _ in read(model).walk():
        if isinstance(unwrap(call.operation), WEIGHT_LAYERS):
            before = graph.producer(call.inputs[0])
            found.setdefault(id(call.operation), set()).add(
                before.operation if before and isinstance(before.operation, ZERO_PADDING) else None
            )
    borders = {}
    for key, layers_before in found.items():
        padding, *others = layers_before
        if padding is not None and not others:
            borders[key] = (
                [padding.padding]
                if isinstance(padding, layers.ZeroPadding1D)
                else list(padding.padding)
            )
    return borders


@dataclasses.dataclass
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

    weight_layers: list
    normalizations: list
    paddings: dict
    channels: int
    rows: int
    seed: int
    # By the layer's position in `weight_layers`, in the order in which the layers run.
    widths: dict[int, int] = dataclasses.field(default_factory=dict)

    def chosen(self, index: int) -> np.ndarray:
        """Which channels of the layer's input are looked at."""
        width = self.widths[index]
        random = np.random.default_rng([self.seed, index])
        return np.sort(random.choice(width, min(width, self.channels), replace=False)).astype(
            "int32"
        )

    def looks(self, training: bool) -> dict[str, tuple]:
        """What a `Recorder` is to look at: `rows/index` for the rows of a weight layer's input,
        `(rows, channels + 1)`, and at inference `moments/index` for the moments of what a
        normalization reads, `(3, channels)`; `index` is the layer's place in the lists.
        """
        found = {
            f"rows/{index}": (layer, self._rows_look(index))
            for index, layer in enumerate(self.weight_layers)
        }
        if not training:
            found.update(
                {
                    f"moments/{index}": (layer, _moments_look(layer))
                    for index, layer in enumerate(self.normalizations)
                }
            )
        return found

    def _rows_look(self, index: int):
        def look(inputs, mask, draws, own):
            return self.rows_of(index, draws, inputs, mask), own()

        return look

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
            mask = ops.broadcast_to(
                mask_of_rank(mask, len(others)), [ops.shape(inputs)[axis] for axis in others]
            )
            counts = ops.cast(ops.take(ops.reshape(mask, (-1, 1)), chosen, axis=0), "float32")
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


def _moments_look(layer):
    axis = unwrap(layer).axis
    axis = axis if axis < 0 else axis + time_axes(layer)

    def look(inputs, mask, draws, own):
        return input_moments(inputs, mask, axis), own()

    return look
