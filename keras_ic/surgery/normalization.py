"""What becomes of each BatchNormalization, and which layers get a bias for it."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_ic.surgery import absorb
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.kinds import (
    inside_time,
    is_batch_normalization,
    is_identity_at_inference,
    is_zero_padding,
    keeps_shifts,
    time_axes,
)
from keras_ic.surgery.policy import Policy

DROPPED, BEFORE, AFTER, AFFINE, KEPT = "dropped", "before", "after", "affine", "kept"
# What only a folding does, see `keras_ic.surgery.folding`.
MERGED, CLIPPED, SIGNED, CARRIED, SHIFT = "merged", "clipped", "signed", "carried", "shift"
# The end of the row of a layer that leaves an output.
NAME_STAYS = "; an Identity keeps its name for the output"

# A layer, and the function that changes its weights, a dictionary by name.
Absorption = tuple[Any, Callable[[dict], None]]


@dataclasses.dataclass(frozen=True, eq=False)
class Fate:
    """What becomes of one call of a BatchNormalization.

    Attributes:
        how: `dropped`; absorbed into the layer `before` it, or into those `after` it; replaced by
            an `affine`; or `kept`. In a folding also: `merged` with the normalizations behind it;
            absorbed into the layer before a ReLU, which is `clipped`; absorbed into the layer
            before it but for its signs (`signed`), which those after it take; its shift `carried`
            by a residual stream; or its `shift` alone stays.
        axis: The channel axis, from 0.
        scale, shift: What the normalization computes at inference is `scale * x + shift`; None
            unless the function is preserved.
        targets: The layers that absorb it.
        reason: Why it is kept.
        absorptions: What that does to their weights.
    """

    how: str
    axis: int = -1
    scale: Any = None
    shift: Any = None
    targets: tuple = ()
    reason: str = ""
    absorptions: tuple[Absorption, ...] = ()

    @property
    def is_bypassed(self) -> bool:
        """Whether nothing stands in its place."""
        return self.how in (DROPPED, BEFORE, AFTER, MERGED, CLIPPED, SIGNED, CARRIED)

    @property
    def is_replaced(self) -> bool:
        """Whether an `Affine` stands in its place."""
        return self.how in (AFFINE, SHIFT)


@dataclasses.dataclass(frozen=True, eq=False)
class Normalizations:
    """The fate of every call of a BatchNormalization by the call's key, the layers that get a bias,
    and what is absorbed after all else.
    """

    fates: dict[int, Fate]
    biased: dict[int, Any]
    last: list[Absorption] = dataclasses.field(default_factory=list)

    def is_bypassed(self, call: Call | None) -> bool:
        """Whether the call is one of a BatchNormalization in whose place nothing stands."""
        return call is not None and call.key in self.fates and self.fates[call.key].is_bypassed

    def keep_their_names(self, root: Graph) -> set[int]:
        """The keys of the calls whose layers leave, or become another, but whose names `compile`
        and `fit` may know an output by.
        """
        if not root.is_told_by_names:
            return set()
        staying = {
            id(call.operation)
            for call in root.calls
            if call.key not in self.fates or self.fates[call.key].how == KEPT
        }
        leaving = [call for call in root.calls if id(call.operation) not in staying]
        return {call.key for call in leaving if id(call.outputs[0]) in root.output_ids}

    def source(self, graph: Graph, tensor):
        """The tensor that stands for `tensor` once the bypassed normalizations are gone."""
        call = graph.producer(tensor)
        while call is not None and self.is_bypassed(call):
            tensor = call.inputs[0]
            call = graph.producer(tensor)
        return tensor


def decide_normalizations(root: Graph, policy: Policy) -> Normalizations:
    """Decides for every BatchNormalization of the model and of the models in it."""
    # A layer that is called twice would absorb the same normalization for both of its calls.
    counts = collections.Counter(id(call.operation) for _, call, _ in root.walk())
    fates: dict[int, Fate] = {}
    biased: dict[int, Any] = {}
    callers: dict[int, list[tuple[Graph, Call]]] = {}
    for graph, call, _ in root.walk():
        if graph.child(call) is not None:
            callers.setdefault(id(graph.child(call)), []).append((graph, call))
    for graph, call, _ in root.walk():
        if not is_batch_normalization(call.operation):
            continue
        fate = fates[call.key] = _decide(graph, call, policy, counts, fates)
        if policy.bias == "repair" and fate.is_bypassed:
            for layer in (*fate.targets, *_linear_layers_above(graph, call, callers)):
                # A layer that only its scale goes into, behind a normalization, needs no bias for
                # that.
                needless = fate.how == AFTER and layer in fate.targets and not np.any(fate.shift)
                if (
                    absorb.is_linear(inside_time(layer))
                    and not absorb.has_bias(inside_time(layer))
                    and not needless
                ):
                    biased[id(layer)] = layer
    return Normalizations(fates, biased)


def _decide(graph: Graph, call: Call, policy: Policy, counts, fates) -> Fate:
    layer = inside_time(call.operation)
    if policy.normalization == "keep":
        return Fate(KEPT, reason='kept, as normalization="keep" says')
    if type(layer).call is not layers.BatchNormalization.call:
        return Fate(
            KEPT,
            reason=(
                f"kept: {type(layer).__name__} computes something else than BatchNormalization does"
            ),
        )
    if call.kwargs.get("training"):
        return Fate(
            KEPT,
            reason=(
                "kept: called with training=True, it normalizes with the statistics of each batch"
                " at inference too"
            ),
        )
    rank = len(call.outputs[0].shape)
    axis = layer.axis % (rank - time_axes(call.operation)) + time_axes(call.operation)
    if policy.weights != "preserve":
        return Fate(DROPPED, axis)
    scale, shift = inference_affine(layer)
    for how, targets, into in (
        (BEFORE, _absorber_before(graph, call, axis, shift, counts, fates), absorb.absorb_output),
        (AFTER, _absorbers_after(graph, call, axis, shift, counts), absorb.absorb_input),
    ):
        if targets and (
            policy.bias == "repair"
            or not np.any(shift)
            or all(absorb.has_bias(target) for target in targets)
        ):
            absorptions = tuple(
                (target, functools.partial(into, target, scale=scale, shift=shift))
                for target in targets
            )
            return Fate(how, axis, scale, shift, tuple(targets), absorptions=absorptions)
    return Fate(AFFINE, axis, scale, shift)


def inference_affine(layer) -> tuple[np.ndarray, np.ndarray]:
    """`scale` and `shift`, in float64, such that a normalization computes `scale * x + shift` at
    inference.
    """
    scale = 1.0 / np.sqrt(absorb.as_array(layer.moving_variance) + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * absorb.as_array(layer.gamma)
    shift = -absorb.as_array(layer.moving_mean) * scale
    if layer.beta is not None:
        shift = shift + absorb.as_array(layer.beta)
    return scale, shift


def _absorber_before(graph: Graph, call: Call, axis: int, shift, counts, fates) -> list:
    tensor = call.inputs[0]
    rank = len(tensor.shape)
    while len(graph.consumers(tensor)) == 1 and id(tensor) not in graph.output_ids:
        above = graph.producer(tensor)
        if above is None:
            break
        passes = above.key in fates and fates[above.key].how == BEFORE
        if not passes and not is_identity_at_inference(above):
            fits = counts[id(above.operation)] == 1 and absorb.takes_output_affine(
                above.operation, axis, rank
            )
            return [above.operation] if fits and len(above.inputs) == 1 else []
        tensor = above.inputs[0]
    return []


def _absorbers_after(graph: Graph, call: Call, axis: int, shift, counts) -> list:
    rank = len(call.outputs[0].shape)
    with_shift = bool(np.any(shift))
    found = []
    tensors = [call.outputs[0]]
    while tensors:
        tensor = tensors.pop()
        if id(tensor) in graph.output_ids:
            return []
        for below in graph.consumers(tensor):
            if is_identity_at_inference(below) or (is_zero_padding(below) and not with_shift):
                tensors.append(below.outputs[0])
            elif (
                counts[id(below.operation)] == 1
                and len(below.inputs) == 1
                and absorb.takes_input_affine(below.operation, axis, rank, with_shift)
            ):
                found.append(below.operation)
            else:
                return []
    return found


def _linear_layers_above(
    graph: Graph, call: Call, callers: Mapping[int, list[tuple[Graph, Call]]]
) -> Iterator[Any]:
    """The linear layers that a normalization stands behind, with nothing between that would keep a
    bias from doing the shift's work.

    The way leads out of the graph of a model and into others, whose callers by the graph's id are
    given.
    """
    tensors, seen = [(graph, tensor) for tensor in call.inputs], set()
    while tensors:
        graph, tensor = tensors.pop()
        if (id(graph), id(tensor)) in seen:
            continue
        seen.add((id(graph), id(tensor)))
        above = graph.producer(tensor)
        if above is None:
            index = list(map(id, graph.inputs)).index(id(tensor))
            given = [
                (outer, outer.passed(caller)[index]) for outer, caller in callers.get(id(graph), [])
            ]
            tensors.extend(
                (outer, passed) for outer, passed in given if isinstance(passed, keras.KerasTensor)
            )
            continue
        child, layer = graph.child(above), inside_time(above.operation)
        if child is not None:
            tensors.append((child, child.outputs[list(map(id, above.outputs)).index(id(tensor))]))
        elif absorb.is_linear(layer) and absorb.has_linear_activation(layer):
            yield above.operation
        elif keeps_shifts(above) or is_batch_normalization(layer):
            tensors.extend((graph, given) for given in above.inputs)
