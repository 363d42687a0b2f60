"""What is done to a model, as rows, and how that prints."""

import dataclasses
import math
from typing import Any

import keras

from keras_ic.layers.channel_affine import ChannelAffine, ChannelClip
from keras_ic.surgery.edits import Edits, Fold, FoldDecision
from keras_ic.surgery.folding import FOR_INFERENCE
from keras_ic.surgery.graph import Call, Graph, class_to_build
from keras_ic.surgery.layer_traits import (
    WEIGHT_LAYERS,
    Effect,
    effect_of,
    equations_of,
    inside_time,
    is_batch_normalization,
    is_ic,
    is_op_node,
    is_regularized,
    time_axes,
    unwrap,
)
from keras_ic.surgery.linear_folding import has_bias, multiplications, size_of_new_bias
from keras_ic.utils import text_table


@dataclasses.dataclass(frozen=True)
class Change:
    """One row of a plan: what becomes of one call of one layer.

    Attributes:
        layer: The path of the layer, `outer/inner/name` inside nested models.
        type: The name of its class.
        kind: `"ic"`, `"normalization"`, `"affine"`, `"dropout"`, `"activation"`, `"bias"` or
            `"constraint"`.
        result: What becomes of it, in words.
        name: The name of the new layer, if there is one.
        rate: The rate of the new IC layer, if there is one.
    """

    layer: str
    type: str
    kind: str
    result: str
    name: str | None = None
    rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Skip:
    """One row of a plan: a layer that stays as it is, and why.

    Attributes:
        layer: The path of the layer, `outer/inner/name` inside nested models.
        type: The name of its class.
        reason: Why it stays, in words.
    """

    layer: str
    type: str
    reason: str


class Plan:
    """What `keras_ic.rewrite` or `keras_ic.fold` would do to a model. Prints as a table.

    Attributes:
        model: The given model.
        changes: List of `Change`, in the order in which the model runs.
        skipped: List of `Skip`: weight layers that get no IC layer, normalizations that stay, and
            layers whose weights are not known.
        parameters: `(before, after)`, numbers of weights, moving statistics included.
        flops: `(before, after)`, floating-point operations of inference on one sample: a
            multiplication and an addition are two; weight layers and normalizations are counted;
            sizes that the model leaves open count as 1.
        is_flops_exact: Whether no size is open, and no layer is left out of the count.
        notes: List of sentences on the model as a whole.
        edits: The `Edits` that the builder carries out.
    """

    def __init__(self, edits: Edits, reasons: dict[int, str]):
        edits.name_new_layers()
        self.model = edits.graph.model
        self.edits = edits
        self.changes: list[Change] = []
        self.skipped: list[Skip] = []
        self.notes: list[str] = []
        self._fill(reasons)
        _, lost = class_to_build(self.model)
        if lost:
            reason = (
                f"becomes a plain model without the class's {', '.join(lost)}: it cannot be"
                " constructed from inputs and outputs"
            )
            self.skipped.append(Skip(self.model.name, type(self.model).__name__, reason))
        before = self.model.count_params()
        self.parameters = (before, before + _added_parameters(edits))
        self.flops = (_flops(edits.graph, None), _flops(edits.graph, edits))
        self.is_flops_exact = all(_is_counted(call) for _, call, _ in edits.graph.walk())

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "model": self.model.name,
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "skipped": [dataclasses.asdict(skip) for skip in self.skipped],
            "parameters": {"before": self.parameters[0], "after": self.parameters[1]},
            "flops": {
                "before": self.flops[0],
                "after": self.flops[1],
                "exact": self.is_flops_exact,
            },
            "notes": self.notes,
        }

    def __str__(self) -> str:
        rows = [(row.layer, row.type, row.result) for row in self.changes] + [
            (row.layer, row.type, f"- {row.reason}") for row in self.skipped
        ]
        (old, new), (old_flops, new_flops) = self.parameters, self.flops
        least = "" if self.is_flops_exact else " at least"
        flops = f"FLOPs a sample{least} {old_flops:,} -> {new_flops:,}"
        cells = text_table.text(("Layer", "Type", "What becomes of it"), rows)
        footer = f"parameters {old:,} -> {new:,}; {flops}"
        return "\n".join([self.model.name, cells, footer, *self.notes])

    def _fill(self, reasons: dict[int, str]) -> None:
        edits, biased = self.edits, dict(self.edits.biased)
        named, holders, freed = set(), edits.name_holders(), edits.freed()
        readings: dict[int, list] = {}
        for (key, _), reading in edits.readings.items():
            readings.setdefault(key, []).append(reading)
        for _, call, path in edits.graph.walk():
            kind = type(unwrap(call.operation)).__name__
            for reading in readings.get(call.key, ()):
                name, rate = reading.insertion.name, reading.insertion.rate
                result = f"IC {name} (rate {rate:g}) before it"
                result += f"; {reading.insertion.why}" if reading.insertion.why else ""
                result = f"shares {name}" if name in named else result
                named.add(name)
                self.changes.append(Change(path, kind, "ic", result, name, rate))
            if call.key in reasons:
                self.skipped.append(Skip(path, kind, reasons[call.key]))
            if biased.pop(id(call.operation), None) is not None:
                self.changes.append(Change(path, kind, "bias", "gets a bias"))
            if id(call.operation) in freed:
                names = ", ".join(freed.pop(id(call.operation)))
                result = f"loses its {names}, which folded weights do not obey"
                self.changes.append(Change(path, kind, "constraint", result))
            if call.key in edits.clips:
                clip = edits.clips[call.key]
                which = "its ReLU " if clip.is_fused else ""
                result = f"{which}becomes {clip.name}, with bounds of each channel's own"
                self.changes.append(Change(path, kind, "activation", result, clip.name))
            fold = edits.folds.get(call.key)
            if fold is not None and fold.decision is FoldDecision.KEPT:
                self.skipped.append(Skip(path, kind, fold.reason))
            elif fold is not None:
                name = edits.affine_names[edits.affine_key(call)] if fold.is_replaced else None
                result = _result(fold, name)
                if call.key in holders:
                    result += "; an Identity keeps its name for the output"
                self.changes.append(Change(path, kind, _role(call), result, name))


def _result(fold: Fold, name: str | None) -> str:
    """What becomes of a normalization, in words; `name` is that of the affine in its place."""
    targets = ", ".join(target.name for target in fold.targets)
    why = f": {fold.reason}" if fold.reason else ""
    regularized = [
        layer.name for layer, _ in fold.absorptions if is_regularized(inside_time(layer))
    ]
    if regularized:
        why += f"; this changes the penalty of the regularizer of {', '.join(regularized)}"
    return {
        FoldDecision.REMOVED: f"removed{why}",
        FoldDecision.INTO_BEFORE: f"folded into {targets}{why}",
        FoldDecision.INTO_AFTER: f"folded into {targets}{why}",
        FoldDecision.MERGED: f"merged with {targets}{why}",
        FoldDecision.THROUGH_ACTIVATION: f"folded into {targets}, through the ReLU between{why}",
        FoldDecision.SIGNS_AFTER: (
            f"folded into {targets}, of which the first takes all but the signs{why}"
        ),
        FoldDecision.CARRIED: f"folded into {targets}, the shift along the residual stream{why}",
        FoldDecision.SHIFT: f"scale folded into {targets}; shift stays as {name}{why}",
        FoldDecision.AFFINE: f"becomes {name}{why}",
    }[fold.decision]


def _role(call: Call) -> str:
    if is_ic(call.operation):
        return "ic"
    if is_batch_normalization(call.operation):
        return "normalization"
    return "affine" if isinstance(inside_time(call.operation), ChannelAffine) else "dropout"


def _added_parameters(edits: Edits) -> int:
    """How many more parameters the new model has."""
    decided = list(edits.decided())
    affines = {edits.affine_key(call): fold for call, _, fold in decided if fold.is_replaced}
    kept = {id(call.operation) for call, _, fold in decided if fold.decision is FoldDecision.KEPT}
    layers = {id(call.operation): call.operation for call, _, _ in decided}
    shapes = {id(call.operation): call.outputs[0].shape for _, call, _ in edits.graph.walk()}
    return (
        sum(4 * insertion.tensor.shape[insertion.axis] for insertion in edits.insertions)
        + sum(
            fold.shift.size * (2 if fold.decision is FoldDecision.AFFINE else 1)
            for fold in affines.values()
        )
        + sum(clip.lower.size * (1 if clip.upper is None else 2) for clip in edits.clips.values())
        + sum(size_of_new_bias(layer, shapes[key]) for key, layer in edits.biased.items())
        - sum(layer.count_params() for key, layer in layers.items() if key not in kept)
    )


def _flops(graph: Graph, edits: Edits | None) -> int:
    """The operations of one run of the model at inference; of the model as `edits` have it, if
    given.
    """
    total = 0
    for call in graph.calls:
        child = graph.child(call)
        if child is not None:
            steps = call.inputs[0].shape[1] if time_axes(call.operation) else 1
            total += steps * _flops(child, edits)
        elif isinstance(inside_time(call.operation), FOR_INFERENCE.kinds):
            fold = edits.folds.get(call.key) if edits else None
            decision = fold.decision if fold else FoldDecision.KEPT
            each = {FoldDecision.KEPT: 2, FoldDecision.AFFINE: 2, FoldDecision.SHIFT: 1}
            total += each.get(decision, 0) * _size(call.outputs[0])
        elif isinstance(call.operation, keras.layers.Layer):
            total += _weight_layer_flops(call)
            if edits and id(call.operation) in edits.biased:
                total += _size(call.outputs[0])
    if edits:
        own = {id(tensor) for call in graph.calls for tensor in (*call.inputs, *call.outputs)}
        places = [each.tensor for each in edits.insertions if id(each.tensor) in own]
        total += sum(2 * _size(tensor) for tensor in places)
    return total


def _is_counted(call: Call) -> bool:
    """Whether the count holds all that the call computes with weights or matrices: no size is
    open, and it is not a layer such as an LSTM.
    """
    layer = unwrap(call.operation)
    known = (*WEIGHT_LAYERS, *FOR_INFERENCE.kinds, ChannelClip, keras.Model)
    if isinstance(layer, known):
        return not any(size is None for given in call.inputs for size in given.shape[1:])
    if not isinstance(layer, keras.layers.Layer):
        return not is_op_node(layer, "Matmul", "Einsum", "Dot", "Tensordot")
    return not layer.weights or effect_of(call) is Effect.LOOKUP


def _weight_layer_flops(call: Call) -> int:
    """The operations of one call of a weight layer; 0 for every other layer."""
    layer = unwrap(call.operation)
    if not isinstance(layer, WEIGHT_LAYERS) or not call.outputs:
        return 0
    outputs = _size(call.outputs[0])
    kernels = [tuple(getattr(layer, each.kernel).shape) for each in equations_of(layer)]
    count = multiplications(layer, _size(call.inputs[0]), outputs, kernels)
    return 2 * count + has_bias(layer) * outputs


def _size(tensor) -> int:
    """How many values the tensor holds for one sample, open sizes counted as 1."""
    return math.prod(length or 1 for length in tensor.shape[1:])
