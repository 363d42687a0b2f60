"""What becomes of each IC layer, BatchNormalization and affine when a model is folded for
inference.

Each is an affine map at inference, `scale * x + shift`. In this order, the first that is exact is
done:

1. It goes into the linear layer before it, or into a normalization right behind it.
2. It goes into all linear layers behind it.
3. It goes through the ReLU before it into the linear layer before that. `scale * relu(x) + shift`
   is `maximum(scale * x + shift, shift)` for a scale of 0 or more; where some scales are below 0,
   their signs go into the linear layers behind. So it is with maximum pooling, without a ReLU too.
4. Its scale goes into the linear layers behind, its shift into layers that feed the sum before it;
  see `keras_ic.surgery.streams`.
5. Its shift stays as an addition of one vector, its scale goes into the linear layers behind: what
  is left before padding with zeros.
6. It stays as an `Affine`, with the reason why.

What is the identity, as an IC layer that a function-preserving rewriting has just made, only
leaves.

Before `padding="same"`, the bounds of 3 and 4, and 5, are two of four exact forms. The others are
to pad with the constant that the map takes to 0, and to add a map of biases, one for each place,
behind the convolution. `python benchmarks/inference.py --forms` times them beside the plain
convolutions: bounds are as fast as these once compiled by XLA; the addition and the map of biases
come next, close to each other, and the map needs images of one size; padding with a constant is the
slowest.
"""

import collections
import dataclasses
import functools
from typing import Any

import numpy as np
from keras import layers

from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.surgery import absorb, streams
from keras_ic.surgery.affine import Affine
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.kinds import (
    DROPOUTS,
    TRANSPOSED,
    inside_time,
    is_computed_as,
    is_plain,
    is_zero_padding,
    time_axes,
)
from keras_ic.surgery.maps import AffineMap, clip_bounds, moved_before, moved_behind
from keras_ic.surgery.normalization import (
    AFFINE,
    AFTER,
    BEFORE,
    CARRIED,
    CLIPPED,
    DROPPED,
    KEPT,
    MERGED,
    SHIFT,
    SIGNED,
    Absorption,
    Fate,
    Normalizations,
    inference_affine,
)

# A shift that stays is divided by the scale that leaves. Where that makes it larger than this,
# values of half precision would drown in it.
LARGEST_SHIFT = 1e4
# The same for a shift that a residual stream carries, in units of the mean and the standard
# deviation of what it is added to.
LARGEST_CARRIED = 8
# How far from 1 a scale may be that rounding alone has moved: that of the IC layers that a
# function-preserving rewriting starts from.
IDENTITY = 2e-7


@dataclasses.dataclass(eq=False)
class Clipping:
    """A ReLU that gets bounds of each channel's own: the one that `call` is, or that is fused into
    the layer it calls.
    """

    call: Call
    axis: int
    lower: np.ndarray
    upper: np.ndarray | None
    is_fused: bool
    name: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class _Before:
    """The linear layer before a map, the map along its output channels, and the ReLU between, if
    there is one.
    """

    operation: Any
    scale: np.ndarray
    shift: np.ndarray
    clipping: Clipping | None


@dataclasses.dataclass(eq=False)
class _Behind:
    """What reads a map's output and takes it up: linear layers, normalizations; or the reason why
    something there does not.
    """

    layers: list[tuple[Any, AffineMap]] = dataclasses.field(default_factory=list)
    normalizations: list[tuple[Call, AffineMap]] = dataclasses.field(default_factory=list)
    reason: str = ""

    @property
    def absorptions(self) -> tuple[Absorption, ...]:
        return tuple(
            (operation, functools.partial(absorb.absorb_map, inside_time(operation), given=given))
            for operation, given in self.layers
        )


def foldable(operation: Any) -> Any:
    """The IC layer, BatchNormalization or affine that it is, be it inside `TimeDistributed`; None
    for anything else.
    """
    layer = inside_time(operation)
    return (
        layer
        if isinstance(layer, (IndependentComponent, layers.BatchNormalization, Affine))
        else None
    )


class Folding:
    """Decides, for a model and the models in it.

    Attributes:
        normalizations: The fate of each call of an IC layer, BatchNormalization, affine or dropout,
            and the layers that get a bias.
        clips: By call, the ReLU that is clipped.
        unfused: The ids of the layers whose fused ReLU leaves them.
    """

    def __init__(self, root: Graph):
        # A layer that is called twice would absorb the same map for both of its calls.
        self.counts = collections.Counter(id(call.operation) for _, call, _ in root.walk())
        self.normalizations = Normalizations({}, {})
        self.clips: dict[int, Clipping] = {}
        self.unfused: set[int] = set()
        self._pending: dict[int, AffineMap] = {}
        for graph, call, _ in root.walk():
            if foldable(call.operation) is not None:
                fate = self._decide(graph, call)
                self.normalizations.fates[call.key] = fate
                self._add_biases(fate)
            elif (
                is_computed_as(call.operation, DROPOUTS)
                and is_plain(call)
                and not _is_place_holder(root, graph, call)
            ):
                self.normalizations.fates[call.key] = Fate(DROPPED)
        # When the fate of all is known, since each changes what others read.
        for graph, call, _ in root.walk():
            decided = self.normalizations.fates.get(call.key)
            if decided is not None and decided.how == SHIFT:
                self._carry(graph, call, decided)

    def _add_biases(self, fate: Fate) -> None:
        absorbing = [operation for operation, _ in fate.absorptions]
        if fate.how in (CLIPPED, SIGNED):
            absorbing = absorbing[:1]  # The others take signs alone.
        if fate.how != SHIFT and np.any(fate.shift):
            self.normalizations.biased.update(
                {id(made): made for made in absorbing if not absorb.has_bias(inside_time(made))}
            )

    def _decide(self, graph: Graph, call: Call) -> Fate:
        layer = foldable(call.operation)
        rank = len(call.outputs[0].shape)
        axis = layer.axis % (rank - time_axes(call.operation)) + time_axes(call.operation)
        given = self._pending.pop(call.key, None)
        reason = _reason_to_keep(layer, call)
        if reason:
            return Fate(KEPT, axis, reason=reason)
        whole = AffineMap.along(axis, rank, *_affine_of(layer))
        whole = whole if given is None else given.then(whole)
        scale, shift = whole.vectors(call.outputs[0].shape[axis])
        if call.inputs[0].dtype != call.outputs[0].dtype:
            return self._left(
                layer,
                axis,
                scale,
                shift,
                f"it turns {call.inputs[0].dtype} into {call.outputs[0].dtype}",
                given,
            )
        if np.all(np.abs(scale - 1) < IDENTITY) and not np.any(shift):
            return Fate(DROPPED, axis, scale, shift)
        before = self._before(graph, call, whole)
        if before is not None and before.clipping is None:
            return Fate(
                BEFORE,
                axis,
                scale,
                shift,
                (before.operation,),
                absorptions=(_into_output(before.operation, before.scale, before.shift),),
            )
        behind = self._behind(graph, call, whole)
        if not behind.reason:
            for other, moved in behind.normalizations:
                self._pending[other.key] = moved
            readers = [operation for operation, _ in behind.layers] + [
                other.operation for other, _ in behind.normalizations
            ]
            how = AFTER if behind.layers else MERGED
            return Fate(how, axis, scale, shift, tuple(readers), absorptions=behind.absorptions)
        return self._clipped(graph, call, axis, whole) or self._split(
            graph, call, axis, whole, behind.reason, given
        )

    def _clipped(self, graph: Graph, call: Call, axis: int, whole: AffineMap) -> Fate | None:
        """Through the ReLU or the max pooling before it, with signs to the layers behind it."""
        scale, shift = whole.vectors(call.outputs[0].shape[axis])
        sign = np.where(whole.scale < 0, -1.0, 1.0)
        behind = (
            self._behind(graph, call, AffineMap(sign, np.zeros_like(sign)))
            if np.any(sign < 0)
            else _Behind()
        )
        before = self._before(graph, call, AffineMap(np.abs(whole.scale), sign * whole.shift))
        if before is None or behind.reason or behind.normalizations:
            return None
        if before.clipping is not None:
            self.clips[before.clipping.call.key] = before.clipping
            if before.clipping.is_fused:
                self.unfused.add(id(before.operation))
        targets = (before.operation, *(operation for operation, _ in behind.layers))
        into = _into_output(before.operation, before.scale, before.shift)
        how = SIGNED if before.clipping is None else CLIPPED
        return Fate(how, axis, scale, shift, targets, absorptions=(into, *behind.absorptions))

    def _split(
        self,
        graph: Graph,
        call: Call,
        axis: int,
        whole: AffineMap,
        reason: str,
        given: AffineMap | None,
    ) -> Fate:
        """The shift stays, the scale goes behind; or all of it stays."""
        layer = foldable(call.operation)
        scale, shift = whole.vectors(call.outputs[0].shape[axis])
        behind = self._behind(graph, call, AffineMap(whole.scale, np.zeros_like(whole.shift)))
        # Such a one is what an earlier folding left.
        is_mere_shift = isinstance(layer, Affine) and given is None and np.all(scale == 1)
        if is_mere_shift or behind.reason or behind.normalizations:
            return self._left(layer, axis, scale, shift, behind.reason or reason, given)
        if not np.all(scale) or np.max(np.abs(shift / scale)) > LARGEST_SHIFT:
            return self._left(
                layer,
                axis,
                scale,
                shift,
                f"{reason}, and without its shift a scale as small as one here cannot go either",
                given,
            )
        targets = tuple(operation for operation, _ in behind.layers)
        return Fate(
            SHIFT, axis, np.ones_like(scale), shift / scale, targets, reason, behind.absorptions
        )

    def _carry(self, graph: Graph, call: Call, fate: Fate) -> None:
        """Has a residual stream carry the shift that would stay, where it can."""

        def takes(operation) -> bool:
            return self.counts[id(operation)] == 1

        if not _is_of_the_size_of_its_inputs(fate.shift, foldable(call.operation)):
            return
        stream = streams.carried(
            graph, call, fate.shift, fate.axis, self.normalizations.fates, takes
        )
        if stream is None or (stream.relu is not None and stream.relu.key in self.clips):
            return
        if stream.relu is not None:
            bounds = clip_bounds(stream.relu.operation)
            assert bounds is not None
            rank = len(stream.relu.outputs[0].shape)
            clipping = _clipping(
                stream.relu,
                bounds,
                AffineMap.along(fate.axis, rank, np.ones_like(fate.shift), fate.shift),
                is_fused=False,
            )
            if clipping is None:
                return
            self.clips[stream.relu.key] = clipping
        for operation, shift in stream.feeds:
            self.normalizations.last.append(_into_output(operation, np.ones_like(shift), shift))
            if not absorb.has_bias(inside_time(operation)):
                self.normalizations.biased[id(operation)] = operation
        targets = (*fate.targets, *dict.fromkeys(operation for operation, _ in stream.feeds))
        self.normalizations.fates[call.key] = dataclasses.replace(
            fate, how=CARRIED, targets=targets, reason=""
        )

    def _left(self, layer, axis: int, scale, shift, reason: str, given: AffineMap | None) -> Fate:
        how = KEPT if isinstance(layer, Affine) and given is None else AFFINE
        return Fate(how, axis, scale, shift, reason=reason)

    def _before(self, graph: Graph, call: Call, given: AffineMap) -> _Before | None:
        """The linear layer before it, with nothing between that the map could not pass, nor
        anything else that reads what would change.
        """
        tensor, clipping = call.inputs[0], None
        while len(graph.consumers(tensor)) == 1 and id(tensor) not in graph.output_ids:
            above = graph.producer(tensor)
            if above is None:
                return None
            fate = self.normalizations.fates.get(above.key)
            bounds = clip_bounds(above.operation) if is_plain(above) and clipping is None else None
            moved = given if fate is not None and fate.is_bypassed else moved_before(above, given)
            if (
                moved is None
                and bounds is not None
                and above.key not in self.clips
                and not np.any(given.scale < 0)
            ):
                clipping = _clipping(above, bounds, given, is_fused=False)
                moved = given if clipping is not None else None
            if moved is None:
                return self._linear_before(above, given, clipping)
            tensor, given = above.inputs[0], moved
        return None

    def _linear_before(
        self, above: Call, given: AffineMap, clipping: Clipping | None
    ) -> _Before | None:
        layer, ahead = inside_time(above.operation), time_axes(above.operation)
        if (
            not absorb.is_linear(layer)
            or self.counts[id(above.operation)] != 1
            or not is_plain(above)
        ):
            return None
        rank = len(above.outputs[0].shape)
        axis = absorb.channel_axis(layer, rank - ahead)
        bounds = clip_bounds(layer.activation) if not absorb.has_linear_activation(layer) else None
        if (
            bounds is not None
            and clipping is None
            and above.key not in self.clips
            and not np.any(given.scale < 0)
        ):
            clipping = _clipping(above, bounds, given, is_fused=True)
        fused = clipping is not None and clipping.is_fused
        fits = given.axes <= {axis + ahead} and (id(above.operation) not in self.unfused)
        if not fits or not absorb.takes_output_affine(layer, axis, rank - ahead, fused):
            return None
        return _Before(
            above.operation, *given.vectors(above.outputs[0].shape[axis + ahead]), clipping
        )

    def _behind(self, graph: Graph, call: Call, given: AffineMap) -> _Behind:
        """Everything that reads it, through what it can pass."""
        found = _Behind()
        tensors = [(call.outputs[0], given)]
        while tensors:
            tensor, given = tensors.pop()
            if id(tensor) in graph.output_ids:
                return _Behind(reason="it is an output of its model")
            if not graph.consumers(tensor):
                return _Behind(reason="nothing reads it")
            for below in graph.consumers(tensor):
                moved = moved_behind(below, given)
                if moved is not None:
                    tensors.append((below.outputs[0], moved))
                elif self._merges(below, given):
                    found.normalizations.append((below, given))
                elif self._takes(below, given):
                    found.layers.append(
                        (below.operation, _without(given, time_axes(below.operation)))
                    )
                else:
                    return _Behind(reason=self._obstacle(below, given))
        return found

    def _merges(self, below: Call, given: AffineMap) -> bool:
        layer = foldable(below.operation)
        if layer is None or _reason_to_keep(layer, below):
            return False
        ahead = time_axes(below.operation)
        return given.axes <= {layer.axis % (len(below.outputs[0].shape) - ahead) + ahead}

    def _takes(self, below: Call, given: AffineMap) -> bool:
        layer, ahead = inside_time(below.operation), time_axes(below.operation)
        if (
            not absorb.is_linear(layer)
            or self.counts[id(below.operation)] != 1
            or not is_plain(below)
        ):
            return False
        if ahead and any(axis <= ahead for axis in given.axes):
            return False
        return absorb.takes_input_map(layer, _without(given, ahead))

    def _obstacle(self, below: Call, given: AffineMap) -> str:
        """Why `below` does not take it up."""
        name = f"{below.operation.name} ({type(inside_time(below.operation)).__name__})"
        layer = inside_time(below.operation)
        if is_zero_padding(below):
            return f"{name} puts zeros around it, which are not shifted"
        if not absorb.is_linear(layer):
            return f"{name} reads it, which is no linear layer that could take it up"
        if self.counts[id(below.operation)] != 1:
            return f"{name} reads it, which is called several times with the same weights"
        if not self._takes(below, AffineMap(given.scale, np.zeros_like(given.shift))):
            return (
                f"{name} reads it, whose weights do not run along axis"
                f" {', '.join(map(str, sorted(given.axes)))} alone"
            )
        if isinstance(layer, layers.EinsumDense):
            return f"{name} reads it, whose bias does not run along all that its shift would"
        if isinstance(layer, TRANSPOSED):
            return (
                f"{name} reads it, whose outputs do not all meet the same weights, and so not the"
                " same shift"
            )
        return f"{name} reads it and pads with zeros, which are not shifted"


def _is_place_holder(root: Graph, graph: Graph, call: Call) -> bool:
    """Whether it is an Identity that gives an output of the model its name, or a Sequential its
    only layer.
    """
    if not is_computed_as(call.operation, (layers.Identity,)):
        return False
    names_output = (
        graph is root and root.is_told_by_names and id(call.outputs[0]) in root.output_ids
    )
    return names_output or (graph.is_sequential and len(graph.calls) == 1)


def _without(given: AffineMap, ahead: int) -> AffineMap:
    """The map as the layer inside `TimeDistributed` sees it."""
    return (
        AffineMap(*(array.reshape(array.shape[ahead:]) for array in (given.scale, given.shift)))
        if ahead
        else given
    )


def _into_output(operation, scale: np.ndarray, shift: np.ndarray) -> Absorption:
    return operation, functools.partial(
        absorb.absorb_output, inside_time(operation), scale=scale, shift=shift
    )


def _clipping(call: Call, bounds: tuple, given: AffineMap, is_fused: bool) -> Clipping | None:
    """The ReLU of the call with the map moved in front of it; None where the map differs along
    several axes, or one of unknown size.
    """
    shape = call.outputs[0].shape
    axis = min(given.axes, default=len(shape) - 1)
    if len(given.axes) > 1 or shape[axis] is None:
        return None
    scale, shift = given.vectors(shape[axis])
    lower, upper = bounds
    return Clipping(
        call,
        axis,
        scale * lower + shift,
        None if upper is None else scale * upper + shift,
        is_fused,
    )


def _affine_of(layer) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(layer, Affine):
        shift = absorb.as_array(layer.shift)
        return absorb.as_array(layer.scale) if layer.use_scale else np.ones_like(shift), shift
    return inference_affine(layer)


def _is_of_the_size_of_its_inputs(shift: np.ndarray, layer) -> bool:
    """Whether the shift is no larger than what it is added to, of which digits would else be lost
    along the stream.
    """
    if isinstance(layer, Affine):
        return False
    mean, variance = absorb.as_array(layer.moving_mean), absorb.as_array(layer.moving_variance)
    return bool(
        np.all(
            np.abs(shift) <= LARGEST_CARRIED * (np.abs(mean) + np.sqrt(variance + layer.epsilon))
        )
    )


def _reason_to_keep(layer, call: Call) -> str:
    known = next(
        kind
        for kind in (IndependentComponent, layers.BatchNormalization, Affine)
        if isinstance(layer, kind)
    )
    if type(layer).call is not known.call:
        return f"stays: {type(layer).__name__} computes something else than {known.__name__} does"
    if call.kwargs.get("training"):
        return (
            "stays: called with training=True, it normalizes with the statistics of each batch at"
            " inference too"
        )
    return ""
