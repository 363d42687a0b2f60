"""`Edits`: the one value that a plan yields and the builder carries out."""

import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.layer_traits import constraints_of, inside_time

# A layer, and the function that changes its weights, a dictionary by name.
Absorption = tuple[Any, Callable[[dict], None]]


class FoldDecision(enum.Enum):
    """What becomes of one call of a normalization, an affine or a dropout."""

    KEPT = "stays"
    REMOVED = "leaves, and nothing takes its place"
    INTO_BEFORE = "goes into the linear layer before it"
    INTO_AFTER = "goes into the linear layers after it"
    MERGED = "goes into the normalizations after it"
    THROUGH_ACTIVATION = "goes into the linear layer before the activation, which gets bounds"
    SIGNS_AFTER = "goes into the linear layer before it, its signs into those after it"
    CARRIED = "goes into the linear layers after it, its shift along the residual stream"
    SHIFT = "goes into the linear layers after it, but for its shift"
    AFFINE = "becomes a ChannelAffine"


REPLACED = frozenset({FoldDecision.SHIFT, FoldDecision.AFFINE})


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """What becomes of one call.

    Attributes:
        decision: Which decision.
        axis: The channel axis, from 0.
        scale, shift: It computes `scale * x + shift` at inference; None where that is of no
            interest. Of what is replaced: what stays.
        targets: The layers that absorb it.
        reason: Why it stays, or why something of it does.
        absorptions: What that does to the weights of the targets.
    """

    decision: FoldDecision
    axis: int = -1
    scale: Any = None
    shift: Any = None
    targets: tuple = ()
    reason: str = ""
    absorptions: tuple[Absorption, ...] = ()

    @property
    def is_replaced(self) -> bool:
        """Whether a ChannelAffine stands in its place."""
        return self.decision in REPLACED

    @property
    def is_bypassed(self) -> bool:
        """Whether nothing stands in its place."""
        return self.decision is not FoldDecision.KEPT and not self.is_replaced


@dataclasses.dataclass(eq=False)
class Clip:
    """A ReLU that becomes a ChannelClip: the one that `call` is, or that is fused into the layer
    that it calls.
    """

    call: Call
    axis: int
    lower: np.ndarray
    upper: np.ndarray | None
    is_fused: bool
    name: str = ""


@dataclasses.dataclass(eq=False)
class Insertion:
    """One new IC layer.

    Attributes:
        layer: The (first) weight layer that it stands before.
        tensor: The tensor of the given model that it reads.
        axis: Its channel axis.
        rate: Its rate: that of the dropout in whose place it stands, or 0 before a dropout that
            stays; None until the policy has been asked.
        seed: That of the dropout in whose place it stands.
        noise: The dropout that made the difference.
        why: That in words.
        name: Its name.
    """

    layer: Any
    tensor: Any
    axis: int
    rate: float | None = None
    seed: int | None = None
    noise: Any = None
    why: str = ""
    name: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What a weight layer reads instead of one of its inputs: the output of an IC layer, run
    through the shape-only steps in between.
    """

    insertion: Insertion
    steps: tuple[Call, ...]


@dataclasses.dataclass(eq=False)
class Edits:
    """All that is to be done to a model.

    Attributes:
        graph: The given model.
        weights: `"fresh"`, `"copy"` or `"preserve"`.
        folds: What becomes of normalizations, affines and dropouts, by the key of the call.
        clips: The ReLUs that become a ChannelClip, by the key of the call.
        unfused: The ids of the layers whose fused activation leaves them.
        biased: The layers that get a bias, by id.
        last: What is absorbed after all that the folds absorb.
        is_for_inference: Whether the new model is not trained any more.
        insertions: The new IC layers.
        readings: By the key of a call and the id of its input: what it reads instead.
        affine_names: The name of each new ChannelAffine, by `affine_key`.
    """

    graph: Graph
    weights: str
    folds: dict[int, Fold] = dataclasses.field(default_factory=dict)
    clips: dict[int, Clip] = dataclasses.field(default_factory=dict)
    unfused: set[int] = dataclasses.field(default_factory=set)
    biased: dict[int, Any] = dataclasses.field(default_factory=dict)
    last: list[Absorption] = dataclasses.field(default_factory=list)
    is_for_inference: bool = False
    insertions: list[Insertion] = dataclasses.field(default_factory=list)
    readings: dict[tuple[int, int], Reading] = dataclasses.field(default_factory=dict)
    affine_names: dict[Any, str] = dataclasses.field(default_factory=dict)

    def is_bypassed(self, call: Call | None) -> bool:
        """Whether nothing stands in place of the call."""
        return call is not None and call.key in self.folds and self.folds[call.key].is_bypassed

    def source(self, graph: Graph, tensor):
        """The tensor that stands for `tensor` once the bypassed calls are gone."""
        call = graph.producer(tensor)
        while call is not None and self.is_bypassed(call):
            tensor = call.inputs[0]
            call = graph.producer(tensor)
        return tensor

    def decided(self) -> Iterator[tuple[Call, str, Fold]]:
        """The calls of normalizations, affines and dropouts: path, and what becomes of it."""
        for _, call, path in self.graph.walk():
            if call.key in self.folds:
                yield call, path, self.folds[call.key]

    def absorptions(self) -> list[Absorption]:
        """All that layers absorb, in order."""
        return [
            *(pair for _, _, fold in self.decided() for pair in fold.absorptions),
            *self.last,
        ]

    def freed(self) -> dict[int, list[str]]:
        """The constraints that folded weights do not obey any more, by the id of their layer."""
        if not self.is_for_inference:
            return {}
        held = {id(layer): constraints_of(inside_time(layer)) for layer, _ in self.absorptions()}
        return {key: names for key, names in held.items() if names}

    def affine_key(self, call: Call) -> Any:
        """Tells the new affines apart: one for all calls of a layer that compute the same."""
        fold = self.folds[call.key]
        return id(call.operation), fold.decision, fold.scale.tobytes(), fold.shift.tobytes()

    def name_new_layers(self) -> None:
        """Gives the new affines and clips names that nothing in the model has."""
        taken = taken_names(self.graph) | {insertion.name for insertion in self.insertions}
        for call, _, fold in self.decided():
            key = self.affine_key(call) if fold.is_replaced else None
            if key is not None and key not in self.affine_names:
                kind = "affine" if fold.decision is FoldDecision.AFFINE else "shift"
                self.affine_names[key] = unique_name(f"{call.operation.name}_{kind}", taken)
        for clip in self.clips.values():
            clip.name = unique_name(f"{clip.call.operation.name}_clip", taken)

    def name_holders(self) -> set[int]:
        """The keys of the calls whose layers leave, or become another, but whose names `compile`
        and `fit` may know an output by: an Identity gets the name.
        """
        root = self.graph
        if not root.is_told_by_names:
            return set()

        def stays(call: Call) -> bool:
            fold = self.folds.get(call.key)
            return fold is None or fold.decision is FoldDecision.KEPT

        staying = {id(call.operation) for call in root.calls if stays(call)}
        leaving = [call for call in root.calls if id(call.operation) not in staying]
        return {call.key for call in leaving if id(call.outputs[0]) in root.output_ids}


def taken_names(root: Graph) -> set[str]:
    """The names of every model, layer and operation in the model."""
    names = {root.model.name}
    for graph, call, _ in root.walk():
        names |= {call.operation.name, *graph.input_names}
    return names


def unique_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or the first free of `wanted_1`, `wanted_2`, ...; taken from then on."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name
