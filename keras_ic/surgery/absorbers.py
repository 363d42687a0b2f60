"""Which layers beside a normalization can take up its affine map: the linear layer before it, or
all that read it.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers

from keras_ic.surgery import linear_folding
from keras_ic.surgery.affine_map import AffineMap, clip_bounds, moved_after, moved_before
from keras_ic.surgery.edits import Absorption, Clip, Edits, FoldDecision
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.layer_traits import (
    Effect,
    channel_axis,
    constraints_of,
    effect_of,
    has_linear_activation,
    inside_time,
    is_linear,
    is_plain,
    is_zero_padding,
    time_axes,
    traits_of,
)


@dataclasses.dataclass(frozen=True)
class Scope:
    """What is folded, and what may be changed for it.

    Attributes:
        kinds: The classes of layers that are folded.
        dropout: Whether dropout leaves too.
        activations: Whether a ReLU may get bounds of each channel's own.
        new_biases: Whether layers may get a bias.
        constrained: Whether weights may change that a constraint holds.
    """

    kinds: tuple[Any, ...]
    dropout: bool
    activations: bool
    new_biases: bool
    constrained: bool


@dataclasses.dataclass(eq=False)
class Before:
    """What stands before a map and takes it up.

    Attributes:
        absorptions: What linear layers absorb: one, or one for each branch of a concatenation.
        clips: The ReLUs between.
        affines: What affines that stay take up, as scale and shift by the key of their call.
    """

    absorptions: list[Absorption] = dataclasses.field(default_factory=list)
    clips: list[Clip] = dataclasses.field(default_factory=list)
    affines: list[tuple[Call, np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    @property
    def targets(self) -> tuple:
        """The layers that take it up."""
        affines = (call.operation for call, _, _ in self.affines)
        return (*(operation for operation, _ in self.absorptions), *affines)


@dataclasses.dataclass(eq=False)
class After:
    """What reads a map's output and takes it up: linear layers, normalizations; or the reason why
    something there does not.
    """

    layers: list[tuple[Any, AffineMap]] = dataclasses.field(default_factory=list)
    normalizations: list[tuple[Call, AffineMap]] = dataclasses.field(default_factory=list)
    reason: str = ""

    @property
    def absorptions(self) -> tuple[Absorption, ...]:
        """What the linear layers absorb."""
        return tuple(
            (
                operation,
                functools.partial(linear_folding.fold_input, inside_time(operation), given=given),
            )
            for operation, given in self.layers
        )


class Absorbers:
    """Looks for them in one model.

    Args:
        edits: What has been decided so far.
        scope: What may be changed.
        merges: Whether a call is one of a normalization that takes a map up.
    """

    def __init__(self, edits: Edits, scope: Scope, merges: Callable[[Call, AffineMap], bool]):
        self.edits = edits
        self.scope = scope
        self._merges = merges
        # A layer that is called twice would absorb the same map for both of its calls.
        self._counts = collections.Counter(id(call.operation) for _, call, _ in edits.graph.walk())

    def may_change(self, operation: Any, with_shift: bool) -> bool:
        """Whether the weights of a layer may change, its bias too if there is a shift."""
        layer = inside_time(operation)
        return (
            self._counts[id(operation)] == 1
            and (self.scope.constrained or not constraints_of(layer))
            and (not with_shift or self.scope.new_biases or linear_folding.has_bias(layer))
        )

    def before(self, graph: Graph, call: Call, given: AffineMap) -> Before | None:
        """What stands before a map, with nothing between that the map could not pass, nor anything
        else that reads what would change.
        """
        found = Before()
        return found if self._search(graph, call.inputs[0], given, None, found) else None

    def _search(
        self, graph: Graph, tensor, given: AffineMap, clip: Clip | None, found: Before
    ) -> bool:
        """Whether what computes `tensor` takes the map up; notes it in `found`."""
        while graph.is_read_once(tensor):
            producer = graph.producer(tensor)
            if producer is None:
                return False
            moved = given if self.edits.is_bypassed(producer) else moved_before(producer, given)
            if moved is None and self._can_clip(producer, given, clip):
                bounds = clip_bounds(producer.operation) if is_plain(producer) else None
                clip = clip_of(producer, bounds, given, is_fused=False) if bounds else None
                moved = given if clip is not None else None
            if moved is None:
                return (
                    self._take_into_branches(graph, producer, given, clip, found)
                    or self._take_into_affine(producer, given, clip, found)
                    or self._take_into_linear(producer, given, clip, found)
                )
            tensor, given = producer.inputs[0], moved
        return False

    def _take_into_branches(
        self, graph: Graph, call: Call, given: AffineMap, clip: Clip | None, found: Before
    ) -> bool:
        """Whether every branch of a concatenation takes up its part."""
        if effect_of(call) is not Effect.CONCATENATION:
            return False
        axis = call.operation.axis % len(call.outputs[0].shape)
        sizes = [tensor.shape[axis] for tensor in call.inputs]
        if not given.axes <= {axis} or None in sizes:
            return False
        vectors = given.vectors(sum(sizes))
        ends: np.ndarray = np.cumsum(sizes)[:-1]
        if clip is not None:
            found.clips.append(clip)
        for tensor, *part in zip(call.inputs, *(np.split(v, ends) for v in vectors), strict=True):
            piece = AffineMap.along(axis, len(tensor.shape), *part)
            # One ReLU on the way is enough.
            if not self._search(graph, tensor, piece, clip, found):
                return False
        if clip is not None:
            found.clips = list({id(each): each for each in found.clips}.values())
        return True

    def _take_into_affine(
        self, call: Call, given: AffineMap, clip: Clip | None, found: Before
    ) -> bool:
        """Whether the call is of an affine that stays, before a ReLU, and takes the map up."""
        fold = self.edits.folds.get(call.key)
        if (
            clip is None
            or fold is None
            or fold.scale is None
            or fold.decision not in (FoldDecision.AFFINE, FoldDecision.KEPT)
            or not given.axes <= {fold.axis}
        ):
            return False
        found.affines.append((call, *given.vectors(fold.scale.size)))
        found.clips.append(clip)
        return True

    def after(self, graph: Graph, call: Call, given: AffineMap) -> After:
        """Everything that reads a map, through what it can pass."""
        found = After()
        tensors = [(call.outputs[0], given)]
        while tensors:
            tensor, given = tensors.pop()
            if id(tensor) in graph.output_ids:
                return After(reason="it is an output of its model")
            if not graph.consumers(tensor):
                return After(reason="nothing reads it")
            for reader in graph.consumers(tensor):
                moved = moved_after(reader, given)
                if moved is not None:
                    tensors.append((reader.outputs[0], moved))
                elif self._merges(reader, given):
                    found.normalizations.append((reader, given))
                elif self._takes(reader, given):
                    inner = _without(given, time_axes(reader.operation))
                    found.layers.append((reader.operation, inner))
                else:
                    return After(reason=self._obstacle(reader, given))
        return found

    def _can_clip(self, call: Call, given: AffineMap, clip: Clip | None) -> bool:
        return (
            self.scope.activations
            and clip is None
            and call.key not in self.edits.clips
            and not np.any(given.scale < 0)
        )

    def _take_into_linear(
        self, call: Call, given: AffineMap, clip: Clip | None, found: Before
    ) -> bool:
        """Whether the call is of a linear layer that takes the map up."""
        layer, ahead = inside_time(call.operation), time_axes(call.operation)
        if not is_linear(layer) or not is_plain(call):
            return False
        rank = len(call.outputs[0].shape)
        axis = channel_axis(layer, rank - ahead)
        fused = False
        if not has_linear_activation(layer) and self._can_clip(call, given, clip):
            bounds = clip_bounds(layer.activation)
            clip = clip_of(call, bounds, given, is_fused=True) if bounds else None
            fused = clip is not None
        if (
            not given.axes <= {axis + ahead}
            or id(call.operation) in self.edits.unfused
            or not self.may_change(call.operation, given.shifts)
            or not linear_folding.takes_output(layer, axis, rank - ahead, fused)
        ):
            return False
        vectors = given.vectors(call.outputs[0].shape[axis + ahead])
        found.absorptions.append(into_output(call.operation, *vectors))
        if clip is not None:
            found.clips.append(clip)
        return True

    def _takes(self, reader: Call, given: AffineMap) -> bool:
        layer, ahead = inside_time(reader.operation), time_axes(reader.operation)
        if not is_linear(layer) or not is_plain(reader):
            return False
        if ahead and any(axis <= ahead for axis in given.axes):
            return False
        return self.may_change(reader.operation, given.shifts) and linear_folding.takes_input(
            layer, _without(given, ahead)
        )

    def _obstacle(self, reader: Call, given: AffineMap) -> str:
        """Why `reader` does not take the map up."""
        layer = inside_time(reader.operation)
        name = f"{reader.operation.name} ({type(layer).__name__})"
        if is_zero_padding(reader):
            return f"{name} puts zeros around it, which are not shifted"
        if not is_linear(layer):
            return f"{name} reads it, which is no linear layer that could take it up"
        if self._counts[id(reader.operation)] != 1:
            return f"{name} reads it, which is called several times with the same weights"
        if not self.scope.constrained and constraints_of(layer):
            return f"{name} reads it, whose {constraints_of(layer)[0]} its weights must obey"
        if not self.may_change(reader.operation, with_shift=given.shifts):
            return f"{name} reads it, which has no bias that could take up the shift"
        if not self._takes(reader, given.without_shift()):
            axes = ", ".join(map(str, sorted(given.axes)))
            return f"{name} reads it, whose weights do not run along axis {axes} alone"
        if isinstance(layer, layers.EinsumDense):
            return f"{name} reads it, whose bias does not run along all that its shift would"
        traits = traits_of(layer)
        if traits is not None and not traits.is_dense:
            return (
                f"{name} reads it, whose outputs do not all meet the same weights, and so not the"
                " same shift"
            )
        return f"{name} reads it and pads with zeros, which are not shifted"


def into_output(operation, scale: np.ndarray, shift: np.ndarray) -> Absorption:
    """What a linear layer absorbs of a map along its output channels."""
    return operation, functools.partial(
        linear_folding.fold_output, inside_time(operation), scale=scale, shift=shift
    )


def clip_of(call: Call, bounds: tuple, given: AffineMap, is_fused: bool) -> Clip | None:
    """The ReLU of the call with the map moved before it; None where the map differs along several
    axes, or one of unknown size.
    """
    shape = call.outputs[0].shape
    axis = min(given.axes, default=len(shape) - 1)
    if len(given.axes) > 1 or shape[axis] is None:
        return None
    scale, shift = given.vectors(shape[axis])
    lower, upper = bounds
    return Clip(
        call,
        axis,
        scale * lower + shift,
        None if upper is None else scale * upper + shift,
        is_fused,
    )


def _without(given: AffineMap, ahead: int) -> AffineMap:
    """The map as the layer inside `TimeDistributed` sees it."""
    if not ahead:
        return given
    return AffineMap(*(array.reshape(array.shape[ahead:]) for array in (given.scale, given.shift)))
