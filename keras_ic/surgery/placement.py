"""Where the IC layers go: before which calls of weight layers, on which tensor, and why some get
none.
"""

import keras

from keras_ic.surgery.edits import Edits, Insertion, Reading, taken_names, unique_name
from keras_ic.surgery.flow import Flow
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.layer_traits import (
    NORMALIZATIONS,
    WEIGHT_LAYERS,
    Effect,
    channels_first,
    dropout_of,
    effect_of,
    is_batch_normalization,
    is_ic,
    is_identity_at_inference,
    is_noise,
    is_reshape,
    is_shape_step,
    is_zero_padding,
    moved_axes,
    time_axes,
    unwrap,
)
from keras_ic.surgery.policy import Policy, Site

READS_INPUT = (
    "reads an input of the model, taken as raw data; where another model feeds it,"
    " `skip_first=False`"
)
READS_INDICES = "it takes its input as indices, which no IC may change"


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
    flow = Flow(edits)
    reasons: dict[int, str] = {}
    shared: dict[tuple, Insertion] = {}
    for graph, call, _ in root.walk():
        if not is_weight_layer(call.operation, policy):
            continue
        if policy.skip is not None and policy.skip(call.operation):
            reasons[call.key] = "skip= says so"
            continue
        for given in data_inputs(call):
            tensor = edits.source(graph, given)
            own, steps = _place(graph, call.operation, tensor, edits)
            reason = _reason_for_none(call, tensor, flow, policy) or _reason_of_shape(own)
            if reason:
                reasons[call.key] = reason
                continue
            reader = _across_border(graph, own, edits) if own.noise is None else None
            key = (id(own.tensor), own.axis, id(own.noise))
            insertion = shared.setdefault(key, own) if policy.share else own
            if insertion is own:
                edits.insertions.append(own)
            if reader is None:
                edits.readings[call.key, id(given)] = Reading(insertion, steps)
            else:
                reasons[call.key] = f"one stands {own.why}"
                edits.readings[reader.key, id(reader.inputs[0])] = Reading(insertion, ())
    taken = taken_names(root)
    for index, insertion in enumerate(edits.insertions):
        insertion.name = unique_name(f"{insertion.layer.name}_ic", taken)
        if insertion.rate is None:
            depth = index / max(len(edits.insertions) - 1, 1)
            insertion.rate = policy.rate_at(Site(insertion.layer, index, depth))
    return reasons


def notes_on_batches(edits: Edits) -> list[str]:
    """What to know of a network that is without BatchNorm on purpose, perhaps."""
    ways_out = "BatchNorm couples the examples of a batch; `skip=` and `rate=` are the ways out."
    if not edits.insertions:
        return []
    kinds = [type(unwrap(call.operation)) for _, call, _ in edits.graph.walk()]
    if not any(issubclass(kind, NORMALIZATIONS) for kind in kinds):
        return [f"The network has no normalization, perhaps on purpose. {ways_out}"]
    places = {id(insertion.tensor): insertion for insertion in edits.insertions}
    for _, call, _ in edits.graph.walk():
        normalizes = isinstance(unwrap(call.operation), NORMALIZATIONS)
        for tensor in call.outputs if normalizes else ():
            if id(tensor) in places and not is_batch_normalization(call.operation):
                name, reader = call.operation.name, places[id(tensor)].layer.name
                return [
                    f"Right after {name} ({type(call.operation).__name__}), as before {reader}, an"
                    f" IC normalizes once more. {ways_out}"
                ]
    return []


def has_channels(tensor, axis: int) -> bool:
    """Whether `axis` of the tensor is an axis other than the batch, of a size that is known."""
    rank = len(tensor.shape)
    return rank >= 2 and -rank < axis < rank and axis != 0 and tensor.shape[axis] is not None


def data_inputs(call: Call) -> list:
    """The tensors that a weight layer works on: positional arguments before keyword ones, each
    once.
    """
    if isinstance(unwrap(call.operation), keras.layers.RNN):
        # The others are states.
        return _flat([*call.args[:1], call.kwargs.get("sequences")])[:1]
    positional = {id(tensor) for argument in call.args for tensor in _flat(argument)}
    chosen = [tensor for tensor in call.inputs if id(tensor) in positional] or list(call.inputs)
    return list({id(tensor): tensor for tensor in chosen}.values())


def _flat(structure) -> list:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def _reason_for_none(call: Call, tensor, flow: Flow, policy: Policy) -> str:
    if id(tensor) in flow.covered:
        return "has an IC layer already"
    if "float" not in tensor.dtype:
        return f"its input is of dtype {tensor.dtype}"
    if effect_of(call) is Effect.LOOKUP:
        return READS_INDICES
    if policy.skip_first and id(tensor) in flow.raw:
        return READS_INPUT
    if id(tensor) in flow.distributions:
        return (
            "its input is a softmax, shares that sum to 1, which BatchNorm and dropout would undo"
        )
    return ""


def _reason_of_shape(insertion: Insertion) -> str:
    if not has_channels(insertion.tensor, insertion.axis):
        shape = tuple(insertion.tensor.shape)
        return f"its input of shape {shape} has no channel axis of a known size"
    if insertion.tensor.shape[insertion.axis] == 1:
        return "its input has a single channel, all of which dropout would hide"
    return ""


def _own_axis(operation, rank: int) -> int:
    return 1 + time_axes(operation) if channels_first(unwrap(operation)) and rank > 2 else -1


def _place(graph: Graph, layer, tensor, edits: Edits) -> tuple[Insertion, tuple[Call, ...]]:
    """The IC layer of a weight layer, before the shape-only steps and the dropouts that end in
    `tensor`, and those that stay between.

    BatchNorm goes before a dropout that is there already, as after it the variance would not be
    that of inference. Where the two are adjacent, one IC layer does the work of both.
    """
    axis = _own_axis(layer, len(tensor.shape))
    steps: list[Call] = []
    while True:
        call = graph.producer(tensor)
        if call is None or not (is_shape_step(call) or is_identity_at_inference(call)):
            break
        producer = edits.source(graph, call.inputs[0])
        keeps_axis = is_zero_padding(call) or is_identity_at_inference(call)
        producer_axis = axis if keeps_axis else _channel_axis(graph, producer)
        if not has_channels(producer, producer_axis) or (
            producer.shape[producer_axis] == 1 and not keeps_axis
        ):
            break
        tensor, axis = producer, producer_axis
        steps.insert(0, call)
    noises = [step for step in steps if is_noise(step)]
    if not noises:
        # Nothing is won by going before an Identity.
        while steps and is_identity_at_inference(steps[0]):
            tensor = steps.pop(0).outputs[0]
        return Insertion(layer, tensor, axis), tuple(steps)
    first = noises[0].operation
    if len(noises) == 1 and steps[0] is noises[0] and dropout_of(noises[0]) is not None:
        why = f"takes over {first.name} (Dropout {first.rate:g})"
        return Insertion(layer, tensor, axis, first.rate, first.seed, first, why), tuple(steps[1:])
    why = _why_before(first)
    return Insertion(layer, tensor, axis, 0.0, None, first, why), tuple(steps)


def _why_before(noise) -> str:
    return f"before {noise.name} ({type(noise).__name__}), which is its dropout"


def _across_border(graph: Graph, insertion: Insertion, edits: Edits) -> Call | None:
    """The dropout on the other side of the border of a model, around the weight layer or before it,
    if the IC layer goes before that; it is moved there. Where something else reads on the way, it
    stays, with a word on that.
    """
    found = None
    tensor, is_alone, is_across = insertion.tensor, True, False
    while True:
        is_alone = is_alone and graph.uses(tensor) == 1
        call, beyond = graph.producer(tensor), graph.across(tensor)
        if beyond:
            crossed = graph if call is None else graph.children[id(call.operation)]
            is_alone, is_across = is_alone and len(crossed.callers) == 1, True
            graph, tensor = beyond[0]
        elif call and is_across and (is_shape_step(call) or is_identity_at_inference(call)):
            if is_noise(call):
                found = graph, call, is_alone
            tensor = call.inputs[0]
        else:
            break
    if found is None:
        return None
    graph, call, is_alone = found
    noise, anchor = call.operation, edits.source(graph, call.inputs[0])
    axis = _channel_axis(graph, anchor)
    if is_alone and has_channels(anchor, axis) and anchor.shape[axis] > 1:
        insertion.tensor, insertion.axis = anchor, axis
        insertion.rate, insertion.noise = 0.0, noise
        insertion.why = f"{_why_before(noise)}, across the border of a model"
        return call
    insertion.why = (
        f"after {noise.name} ({type(noise).__name__}) across the border of a model, which is not"
        " for this layer alone, so that the variance of training is not that of inference:"
        " `keras_ic.Recalibration` re-estimates it"
    )
    return None


def _channel_axis(graph: Graph, tensor) -> int:
    """The channel axis of `tensor`, as told by the nearest layer before it that has one; -1 where
    none tells.
    """
    rank = len(tensor.shape)
    while True:
        call = graph.producer(tensor)
        if call is None or len(tensor.shape) != rank or not call.inputs:
            return -1
        for child, output in graph.across(tensor):
            axis = _channel_axis(child, output)
            return axis + time_axes(call.operation) if axis >= 0 else axis
        layer = unwrap(call.operation)
        order = moved_axes(call)
        if order is not None:
            return _from_end(order.index(_channel_axis(graph, call.inputs[0]) % rank), rank)
        if hasattr(layer, "data_format") and not is_shape_step(call):
            return _own_axis(call.operation, rank)
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
