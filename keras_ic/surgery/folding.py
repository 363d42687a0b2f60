"""What becomes of each IC layer, BatchNormalization and affine: one engine, for `fold` and for
`rewrite(weights="preserve")`.

Each is an affine map at inference, `scale * x + shift`. In this order, the first that is exact is
done:

1. It goes into the linear layer before it.
2. It goes into all linear layers and normalizations after it.
3. It goes through the ReLU before it into the linear layer before that. `scale * relu(x) + shift`
   is `maximum(scale * x + shift, shift)` for a scale of 0 or more; where some scales are below 0,
   their signs go into the linear layers after it. So it is with maximum pooling, without a ReLU
   too.
4. Its scale goes into the linear layers after it, its shift into layers that feed the sum before
   it; see `keras_ic.surgery.residual_shift`.
5. Its shift stays as an addition of one vector, its scale goes into the linear layers after it:
   what is left before padding with zeros.
6. It stays as a `ChannelAffine`, with the reason why.

What is the identity, as an IC layer that a function-preserving rewriting has just made, only
leaves. A `Scope` says what of all this is allowed: a rewritten network is trained on, so that its
activations stay as they are.

Before `padding="same"`, the bounds of 3 and 4, and 5, are two of four exact forms. The others are
to pad with the constant that the map takes to 0, and to add a map of biases, one for each place,
after the convolution. `python benchmarks/inference.py --forms` times them beside the plain
convolutions: bounds are as fast as these once compiled by XLA; the addition and the map of biases
come next, close to each other, and the map needs images of one size; padding with a constant is the
slowest.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import layers

from keras_ic.layers.channel_affine import ChannelAffine
from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.surgery.absorbers import Absorbers, Before, Scope, clip_of, into_output
from keras_ic.surgery.affine_map import AffineMap, clip_bounds
from keras_ic.surgery.edits import Edits, Fold, FoldDecision
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.layer_traits import (
    inside_time,
    is_identity_at_inference,
    is_plain,
    time_axes,
)
from keras_ic.surgery.linear_folding import as_array, has_bias
from keras_ic.surgery.residual_shift import carried

# A shift that stays is divided by the scale that leaves. Where that makes it larger than this,
# values of half precision would drown in it.
LARGEST_SHIFT = 1e4
# The same for a shift that a residual stream carries, in units of the mean and the standard
# deviation of what it is added to.
LARGEST_CARRIED = 8
# How far from 1 a scale may be that rounding alone has moved: that of the IC layers that a
# function-preserving rewriting starts from.
IDENTITY = 2e-7


FOR_INFERENCE = Scope(
    (IndependentComponent, layers.BatchNormalization, ChannelAffine),
    dropout=True,
    activations=True,
    new_biases=True,
    constrained=True,
)
FOR_TRAINING = Scope(
    (layers.BatchNormalization,),
    dropout=False,
    activations=False,
    new_biases=True,
    constrained=False,
)


def affine_layer(operation: Any, scope: Scope = FOR_INFERENCE) -> Any:
    """The layer of one of the scope's kinds that it is, be it inside `TimeDistributed`; None for
    anything else.
    """
    layer = inside_time(operation)
    return layer if isinstance(layer, scope.kinds) else None


def channel_axis_of(call: Call) -> int:
    """The channel axis, from 0, of a call of a normalization or an affine."""
    ahead = time_axes(call.operation)
    axis: int = inside_time(call.operation).axis
    return axis % (len(call.outputs[0].shape) - ahead) + ahead


def inference_affine(layer) -> tuple[np.ndarray, np.ndarray]:
    """`scale` and `shift`, in float64, such that a normalization or an affine computes `scale * x +
    shift` at inference.
    """
    if isinstance(layer, ChannelAffine):
        shift = as_array(layer.shift)
        return as_array(layer.scale) if layer.use_scale else np.ones_like(shift), shift
    scale = 1.0 / np.sqrt(as_array(layer.moving_variance) + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * as_array(layer.gamma)
    shift = -as_array(layer.moving_mean) * scale
    if layer.beta is not None:
        shift = shift + as_array(layer.beta)
    return scale, shift


def reason_to_keep(layer, call: Call) -> str:
    """Why a call of a normalization or an affine is not that affine map at inference; empty where
    it is.
    """
    known = next(kind for kind in FOR_INFERENCE.kinds if isinstance(layer, kind))
    if type(layer).call is not known.call:
        return f"stays: {type(layer).__name__} computes something else than {known.__name__} does"
    if call.kwargs.get("training"):
        return (
            "stays: called with training=True, it normalizes with the statistics of each batch at"
            " inference too"
        )
    return ""


def fold_exactly(edits: Edits, scope: Scope) -> None:
    """Decides for every normalization of the scope, in the model and the models in it, so that the
    function stays; what has been decided before stays as it is.
    """
    _Folding(edits, scope).run()


class _Folding:
    def __init__(self, edits: Edits, scope: Scope):
        self.edits = edits
        self.scope = scope
        self.absorbers = Absorbers(edits, scope, self._merges)
        self._pending: dict[int, AffineMap] = {}

    def run(self) -> None:
        root = self.edits.graph
        for graph, call, _ in root.walk():
            if call.key in self.edits.folds:
                continue
            if affine_layer(call.operation, self.scope) is not None:
                fold = self._decide(graph, call)
                self.edits.folds[call.key] = fold
            elif (
                self.scope.dropout
                and is_identity_at_inference(call)
                and not isinstance(call.operation, layers.Activation)
                and not _is_place_holder(root, graph, call)
            ):
                self.edits.folds[call.key] = Fold(
                    FoldDecision.REMOVED, reason="the identity at inference"
                )
        # When the fate of all is known, since each changes what others read.
        for graph, call, _ in root.walk():
            decided = self.edits.folds.get(call.key)
            if decided is not None and decided.decision is FoldDecision.SHIFT:
                self._carry(graph, call, decided)

    def _add_biases(self, absorptions, shift) -> None:
        """Gives a bias to the layers that absorb a shift and have none."""
        for operation, _ in absorptions if np.any(shift) else ():
            if not has_bias(inside_time(operation)):
                self.edits.biased[id(operation)] = operation

    def _change(self, before: Before, shift) -> None:
        """Notes what becomes of the ReLUs and the affines between, and the biases."""
        self._add_biases(before.absorptions, shift)
        for clip in before.clips:
            self.edits.clips[clip.call.key] = clip
            if clip.is_fused:
                self.edits.unfused.add(id(clip.call.operation))
        for call, scale, moved in before.affines:
            fold = self.edits.folds[call.key]
            self.edits.folds[call.key] = dataclasses.replace(
                fold,
                decision=FoldDecision.AFFINE,
                scale=scale * fold.scale,
                shift=scale * fold.shift + moved,
                reason=fold.reason.removeprefix("stays: "),
            )

    def _merges(self, after: Call, given: AffineMap) -> bool:
        """Whether the call is of a normalization that takes the map up."""
        layer = affine_layer(after.operation, self.scope)
        if layer is None or reason_to_keep(layer, after) or after.key in self.edits.folds:
            return False
        return given.axes <= {channel_axis_of(after)}

    def _decide(self, graph: Graph, call: Call) -> Fold:
        layer, axis = affine_layer(call.operation, self.scope), channel_axis_of(call)
        given = self._pending.pop(call.key, None)
        reason = reason_to_keep(layer, call)
        if reason:
            return Fold(FoldDecision.KEPT, axis, reason=reason)
        rank = len(call.outputs[0].shape)
        whole = AffineMap.along(axis, rank, *inference_affine(layer))
        whole = whole if given is None else given.then(whole)
        scale, shift = whole.vectors(call.outputs[0].shape[axis])
        if call.inputs[0].dtype != call.outputs[0].dtype:
            why = f"it turns {call.inputs[0].dtype} into {call.outputs[0].dtype}"
            return self._left(layer, axis, scale, shift, why, given)
        if np.all(np.abs(scale - 1) < IDENTITY) and not np.any(shift):
            return Fold(
                FoldDecision.REMOVED, axis, scale, shift, reason="the identity at inference"
            )
        before = self.absorbers.before(graph, call, whole)
        if before is not None and not before.clips:
            self._change(before, shift)
            absorptions = tuple(before.absorptions)
            return Fold(
                FoldDecision.INTO_BEFORE, axis, scale, shift, before.targets, "", absorptions
            )
        after = self.absorbers.after(graph, call, whole)
        if not after.reason:
            for other, moved in after.normalizations:
                self._pending[other.key] = moved
            targets = [operation for operation, _ in after.layers]
            targets += [other.operation for other, _ in after.normalizations]
            decision = FoldDecision.INTO_AFTER if after.layers else FoldDecision.MERGED
            self._add_biases(after.absorptions, shift)
            return Fold(decision, axis, scale, shift, tuple(targets), absorptions=after.absorptions)
        return self._with_signs_after(graph, call, axis, whole) or self._split(
            graph, call, axis, whole, after.reason, given
        )

    def _with_signs_after(
        self, graph: Graph, call: Call, axis: int, whole: AffineMap
    ) -> Fold | None:
        """Through the ReLU or the max pooling before it, with signs to the layers after it."""
        scale, shift = whole.vectors(call.outputs[0].shape[axis])
        sign = np.where(whole.scale < 0, -1.0, 1.0)
        before = self.absorbers.before(
            graph, call, AffineMap(np.abs(whole.scale), sign * whole.shift)
        )
        if before is None:
            return None
        absorptions, targets = tuple(before.absorptions), before.targets
        if np.any(sign < 0):
            after = self.absorbers.after(graph, call, AffineMap(sign, np.zeros_like(sign)))
            if after.reason or after.normalizations:
                return None
            absorptions = (*absorptions, *after.absorptions)
            targets = (*targets, *(operation for operation, _ in after.layers))
        decision = FoldDecision.SIGNS_AFTER
        if before.clips:
            decision = FoldDecision.THROUGH_ACTIVATION
        self._change(before, shift)
        return Fold(decision, axis, scale, shift, targets, absorptions=absorptions)

    def _split(
        self,
        graph: Graph,
        call: Call,
        axis: int,
        whole: AffineMap,
        reason: str,
        given: AffineMap | None,
    ) -> Fold:
        """The shift stays, the scale goes into what comes after; or all of it stays."""
        layer = affine_layer(call.operation, self.scope)
        scale, shift = whole.vectors(call.outputs[0].shape[axis])
        after = self.absorbers.after(graph, call, whole.without_shift())
        # Such a one is what an earlier folding left.
        is_mere_shift = isinstance(layer, ChannelAffine) and given is None and np.all(scale == 1)
        if is_mere_shift or after.reason or after.normalizations:
            return self._left(layer, axis, scale, shift, after.reason or reason, given)
        if not np.all(scale) or np.max(np.abs(shift / scale)) > LARGEST_SHIFT:
            why = f"{reason}, and without its shift a scale as small as one here cannot go either"
            return self._left(layer, axis, scale, shift, why, given)
        targets = tuple(operation for operation, _ in after.layers)
        return Fold(
            FoldDecision.SHIFT,
            axis,
            np.ones_like(scale),
            shift / scale,
            targets,
            reason,
            after.absorptions,
        )

    def _left(self, layer, axis: int, scale, shift, reason: str, given: AffineMap | None) -> Fold:
        if isinstance(layer, ChannelAffine) and given is None:
            return Fold(FoldDecision.KEPT, axis, scale, shift, reason=f"stays: {reason}")
        return Fold(FoldDecision.AFFINE, axis, scale, shift, reason=reason)

    def _carry(self, graph: Graph, call: Call, fold: Fold) -> None:
        """Has a residual stream carry the shift that would stay, where it can."""
        if not _is_of_the_size_of_its_inputs(fold.shift, affine_layer(call.operation, self.scope)):
            return
        stream = carried(graph, call, fold.shift, fold.axis, self.absorbers)
        if stream is None or (stream.relu is not None and stream.relu.key in self.edits.clips):
            return
        if stream.relu is not None:
            bounds = clip_bounds(stream.relu.operation)
            assert bounds is not None
            rank = len(stream.relu.outputs[0].shape)
            moved = AffineMap.along(fold.axis, rank, np.ones_like(fold.shift), fold.shift)
            clip = clip_of(stream.relu, bounds, moved, is_fused=False)
            if clip is None:
                return
            self.edits.clips[stream.relu.key] = clip
        absorptions = [
            into_output(operation, np.ones_like(shift), shift) for operation, shift in stream.feeds
        ]
        self.edits.last += absorptions
        self._add_biases(absorptions, fold.shift)
        targets = (*fold.targets, *dict.fromkeys(operation for operation, _ in stream.feeds))
        self.edits.folds[call.key] = dataclasses.replace(
            fold, decision=FoldDecision.CARRIED, targets=targets, reason=""
        )


def _is_place_holder(root: Graph, graph: Graph, call: Call) -> bool:
    """Whether it is an Identity that gives an output of the model its name, or a Sequential its
    only layer.
    """
    if not isinstance(call.operation, layers.Identity) or not is_plain(call):
        return False
    names_output = (
        graph is root and root.is_told_by_names and id(call.outputs[0]) in root.output_ids
    )
    return names_output or (graph.is_sequential and len(graph.calls) == 1)


def _is_of_the_size_of_its_inputs(shift: np.ndarray, layer) -> bool:
    """Whether the shift is no larger than what it is added to, of which digits would else be lost
    along the stream.
    """
    if isinstance(layer, ChannelAffine):
        return False
    mean, variance = as_array(layer.moving_mean), as_array(layer.moving_variance)
    size = np.abs(mean) + np.sqrt(variance + layer.epsilon)
    return bool(np.all(np.abs(shift) <= LARGEST_CARRIED * size))
