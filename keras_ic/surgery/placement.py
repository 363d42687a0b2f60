"""Where the IC layers go: before which calls of weight layers, on which tensor, and why some get
none.
"""

import keras

from keras_ic.surgery.edits import Edits, Insertion, Reading, taken_names, unique_name
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.layer_traits import (
    WEIGHT_LAYERS,
    channels_first,
    is_ic,
    is_identity_at_inference,
    is_learned,
    is_reshape,
    is_shape_step,
    is_zero_padding,
    moved_axes,
    time_axes,
    unwrap,
)
from keras_ic.surgery.policy import Policy, Site


def is_weight_layer(operation, policy: Policy) -> bool:
    """Whether IC layers are to stand before it."""
    return (
        isinstance(unwrap(operation), WEIGHT_LAYERS)
        or isinstance(operation, policy.weight_layers)
        or isinstance(unwrap(operation), policy.weight_layers)
    )


def place_ics(edits: Edits, policy: Policy) -> dict[int, str]:
    """Decides for every call of a weight layer of the model and of the models in it; returns, by
    the key of the call, why some get none.
    """
    root = edits.graph
    flow = _Flow(edits)
    flow.run(root, [(True, False)] * len(root.inputs))
    reasons: dict[int, str] = {}
    shared: dict[tuple[int, int], Insertion] = {}
    for graph, call, _ in root.walk():
        if not is_weight_layer(call.operation, policy):
            continue
        if policy.skip is not None and policy.skip(call.operation):
            reasons[call.key] = "skip= says so"
            continue
        for given in _data_inputs(call):
            tensor = edits.source(graph, given)
            reason = _reason_for_none(tensor, flow, policy)
            own_axis = _own_axis(call.operation, len(tensor.shape))
            anchor, steps, axis = _climb(graph, tensor, own_axis, edits)
            if not reason and not has_channels(anchor, axis):
                reason = (
                    f"its input of shape {tuple(anchor.shape)} has no channel axis of a known size"
                )
            if reason:
                reasons[call.key] = reason
                continue
            key = (id(anchor), axis)
            insertion = shared.get(key) if policy.share else None
            if insertion is None:
                insertion = shared[key] = Insertion("", 0.0, axis, call.operation, anchor)
                edits.insertions.append(insertion)
            edits.readings[call.key, id(given)] = Reading(insertion, steps)
    taken = taken_names(root)
    for index, insertion in enumerate(edits.insertions):
        insertion.name = unique_name(f"{insertion.layer.name}_ic", taken)
        depth = index / max(len(edits.insertions) - 1, 1)
        insertion.rate = policy.rate_at(Site(insertion.layer, index, depth))
    return reasons


def has_channels(tensor, axis: int) -> bool:
    """Whether `axis` of the tensor is an axis other than the batch, of a size that is known."""
    rank = len(tensor.shape)
    return rank >= 2 and -rank < axis < rank and axis != 0 and tensor.shape[axis] is not None


def _data_inputs(call: Call) -> list:
    """The tensors that a weight layer works on: positional arguments before keyword ones, each
    once.
    """
    positional = {id(tensor) for argument in call.args for tensor in _flat(argument)}
    chosen = [tensor for tensor in call.inputs if id(tensor) in positional] or list(call.inputs)
    return list({id(tensor): tensor for tensor in chosen}.values())


def _flat(structure) -> list:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def _reason_for_none(tensor, flow: "_Flow", policy: Policy) -> str:
    if id(tensor) in flow.covered:
        return "has an IC layer already"
    if "float" not in tensor.dtype:
        return f"its input is of dtype {tensor.dtype}"
    if policy.skip_first and id(tensor) in flow.raw:
        return "reads the raw input"
    return ""


def _own_axis(operation, rank: int) -> int:
    return 1 + time_axes(operation) if channels_first(unwrap(operation)) and rank > 2 else -1


def _climb(graph: Graph, tensor, axis: int, edits: Edits):
    """The tensor before the shape-only steps that end in `tensor`, those steps in their order, and
    the channel axis there.
    """
    steps: list[Call] = []
    while True:
        call = graph.producer(tensor)
        if call is None or not is_shape_step(call):
            return tensor, tuple(steps), axis
        producer = edits.source(graph, call.inputs[0])
        producer_axis = axis if is_zero_padding(call) else _channel_axis(graph, producer)
        if not has_channels(producer, producer_axis):
            return tensor, tuple(steps), axis
        tensor, axis = producer, producer_axis
        steps.insert(0, call)


def _channel_axis(graph: Graph, tensor) -> int:
    """The channel axis of `tensor`, as told by the nearest layer before it that has one; -1 where
    none tells.
    """
    rank = len(tensor.shape)
    while True:
        call = graph.producer(tensor)
        if call is None or len(tensor.shape) != rank or not call.inputs:
            return -1
        child = graph.child(call)
        if child is not None:
            return _channel_axis(
                child, child.outputs[[id(output) for output in call.outputs].index(id(tensor))]
            )
        layer = unwrap(call.operation)
        order = moved_axes(call)
        if order is not None:
            return _from_end(order.index(_channel_axis(graph, call.inputs[0]) % rank), rank)
        if hasattr(layer, "data_format") and not is_shape_step(call):
            return 1 + time_axes(call.operation) if channels_first(layer) and rank > 2 else -1
        if is_ic(layer) or hasattr(layer, "moving_mean"):
            return _from_end(
                layer.axis + (time_axes(call.operation) if layer.axis >= 0 else 0), rank
            )
        if isinstance(layer, WEIGHT_LAYERS) or is_reshape(call):
            return -1
        tensor = call.inputs[0]


def _from_end(axis: int, rank: int) -> int:
    """The axis, the last one as -1."""
    return -1 if axis == rank - 1 else axis


class _Flow:
    """Which tensors are raw (nothing learned lies between them and the model's inputs), and which
    an IC layer has just treated (are covered).

    A model that is called several times may get both sorts of tensors: its inner tensors are raw if
    they are so in any call, and covered only if they are so in every call.
    """

    def __init__(self, edits: Edits):
        self.edits = edits
        self.raw: set[int] = set()
        self.covered: set[int] = set()
        self._uncovered: set[int] = set()

    def run(self, graph: Graph, inputs: list[tuple[bool, bool]]) -> list[tuple[bool, bool]]:
        """Marks the tensors of the graph, given for each of its inputs whether it is `(raw,
        covered)`; returns the same of its outputs.
        """
        states = {id(tensor): state for tensor, state in zip(graph.inputs, inputs, strict=True)}
        for call in graph.calls:
            child = graph.child(call)
            if child is not None:
                outputs = self.run(
                    child, [states.get(id(tensor), (True, False)) for tensor in graph.passed(call)]
                )
            else:
                raw = all(states[id(tensor)][0] for tensor in call.inputs) and not is_learned(
                    call.operation
                )
                passes = (
                    is_shape_step(call)
                    or is_identity_at_inference(call)
                    or self.edits.is_bypassed(call)
                )
                covered = is_ic(call.operation) or (passes and states[id(call.inputs[0])][1])
                outputs = [(raw, covered)] * len(call.outputs)
            states.update(zip(map(id, call.outputs), outputs, strict=True))
        self.raw |= {key for key, (raw, _) in states.items() if raw}
        self._uncovered |= {key for key, (_, covered) in states.items() if not covered}
        self.covered = (self.covered | set(states)) - self._uncovered
        return [states[id(tensor)] for tensor in graph.outputs]
