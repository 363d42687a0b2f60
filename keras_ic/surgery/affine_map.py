"""Affine maps of a tensor, `scale * x + shift` with few distinct values, and what becomes of one
that is moved past a step of a model.

Arrays have one axis for each axis of the tensor but the batch, of size 1 where they are constant.
"""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_ic.surgery.graph import Call
from keras_ic.surgery.layer_traits import (
    Effect,
    channels_first,
    effect_of,
    is_identity_at_inference,
    is_op_node,
    is_plain,
    is_reshape,
)


@dataclasses.dataclass(frozen=True, eq=False)
class AffineMap:
    """`scale * x + shift`, in float64, for a tensor whose axes but the batch are those of the
    arrays.
    """

    scale: np.ndarray
    shift: np.ndarray

    @staticmethod
    def along(axis: int, rank: int, scale: np.ndarray, shift: np.ndarray) -> "AffineMap":
        """The map with these values along `axis`, counted from 0 at the batch, of a tensor of this
        rank.
        """
        shape = [1] * (rank - 1)
        shape[axis - 1] = -1
        return AffineMap(scale.reshape(shape), shift.reshape(shape))

    @property
    def axes(self) -> set[int]:
        """Along which axes, counted from 0 at the batch, the values differ."""
        return {
            axis
            for array in (self.scale, self.shift)
            for axis, size in enumerate(array.shape, 1)
            if size > 1
        }

    @property
    def shifts(self) -> bool:
        """Whether it is more than a scale."""
        return bool(np.any(self.shift))

    def without_shift(self) -> "AffineMap":
        """The scale alone."""
        return AffineMap(self.scale, np.zeros_like(self.shift))

    def vectors(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift along the one axis, of this size, along which they may differ."""
        return np.broadcast_to(self.scale.ravel(), (size,)), np.broadcast_to(
            self.shift.ravel(), (size,)
        )

    def then(self, other: "AffineMap") -> "AffineMap":
        """This map, and the other after it."""
        return AffineMap(other.scale * self.scale, other.scale * self.shift + other.shift)

    def each(self, function) -> "AffineMap | None":
        """The map with both arrays changed by `function`; None where that gives None."""
        scale, shift = function(self.scale), function(self.shift)
        return (
            None
            if scale is None or shift is None
            else AffineMap(_compressed(scale), _compressed(shift))
        )


def moved_after(call: Call, given: AffineMap) -> AffineMap | None:
    """The map `after` such that `call(given(x))` is `after(call(x))`; None where there is none,
    or none is known.
    """
    return _moved(call, given, down=True)


def moved_before(call: Call, given: AffineMap) -> AffineMap | None:
    """The map `before` such that `given(call(x))` is `call(before(x))`; None where there is none,
    or none is known.
    """
    return _moved(call, given, down=False)


def _moved(call: Call, given: AffineMap, down: bool) -> AffineMap | None:
    if not is_plain(call):
        return None
    operation: Any = call.operation
    here, there = call.inputs[0].shape, call.outputs[0].shape
    if not down:
        here, there = there, here
    effect = effect_of(call)
    if is_identity_at_inference(call):
        return given
    if effect is Effect.ZERO_PADDING:
        sizes_stay = len(here) == len(there) and all(
            here[axis] == there[axis] for axis in given.axes
        )
        return given if sizes_stay and not given.shifts else None
    if effect in (Effect.MEAN, Effect.MAXIMUM) and isinstance(operation, layers.Layer):
        if effect is Effect.MAXIMUM and np.any(given.scale < 0):
            return None
        if getattr(operation, "interpolation", "nearest") not in ("nearest", "bilinear"):
            return None
        axes = (1, 1) if channels_first(operation) else (len(here) - 1, len(there) - 1)
        if not given.axes <= {axes[0]}:
            return None
        return AffineMap.along(axes[1], len(there), given.scale.ravel(), given.shift.ravel())
    if effect is Effect.PERMUTE and isinstance(operation, layers.Layer):
        order = [axis - 1 for axis in operation.dims]
        order = order if down else [order.index(axis) for axis in range(len(order))]
        return given.each(lambda array: array.transpose(order))
    if not is_reshape(call):
        return None
    if (
        isinstance(operation, layers.Flatten)
        and channels_first(operation)
        and len(call.inputs[0].shape) > 2
    ):
        if not down:
            return None
        # It puts the channels last, then flattens.
        given = AffineMap(*(np.moveaxis(array, 0, -1) for array in (given.scale, given.shift)))
        here = (here[0], *here[2:], here[1])
    return given.each(lambda array: _reshaped(array, here, there))


def _reshaped(array: np.ndarray, here: tuple, there: tuple) -> np.ndarray | None:
    """What an array over the axes `here` is over the axes `there`, of the same values in the same
    order.
    """
    if array.size == 1:
        return array.reshape([1] * (len(there) - 1))
    if array.size == array.shape[-1] and here[-1] == there[-1]:
        return array.reshape([1] * (len(there) - 2) + [-1])
    if None in here[1:] or None in there[1:] or math.prod(here[1:]) != math.prod(there[1:]):
        return None
    return np.broadcast_to(array, here[1:]).reshape(there[1:])


def _compressed(array: np.ndarray) -> np.ndarray:
    """The array with size 1 along the axes along which it is constant."""
    for axis, size in enumerate(array.shape):
        first: np.ndarray = array.take([0], axis)
        if size > 1 and np.all(array == first):
            array = first
    return array


def clip_bounds(activation: Any) -> tuple[float, float | None] | None:
    """The bounds of an activation that is `minimum(maximum(x, lower), upper)`, be it a function, a
    layer or an op node; None for every other.

    A scale of 0 or more and a shift after it are the same before it, with the bounds scaled and
    shifted.
    """
    if type(activation) is layers.Activation:
        activation = activation.activation
    if activation is keras.activations.relu or is_op_node(activation, "Relu"):
        return 0.0, None
    if activation is keras.activations.relu6 or is_op_node(activation, "Relu6"):
        return 0.0, 6.0
    if (
        type(activation) is layers.ReLU
        and not activation.negative_slope
        and not activation.threshold
    ):
        return 0.0, activation.max_value
    return None
