"""Shifts that travel along a residual stream into the layers that feed it.

A block of a residual network reads `x + shift`, or `relu(x) + shift`, of a sum `x` which a skip
connection reads too. `relu(x) + shift` is `maximum(x + shift, shift)`, and a layer that feeds the
sum can add the shift in its bias. Where further additions read the sum, a layer on their other side
takes the shift away again, so that what they compute stays as it was.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import layers

from keras_ic.surgery import absorb
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.kinds import (
    inside_time,
    is_identity_at_inference,
    is_keras_operation,
    is_plain,
    time_axes,
)
from keras_ic.surgery.maps import clip_bounds
from keras_ic.surgery.normalization import BEFORE, DROPPED, Fate


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """The ReLU that a shift goes through, if there is one, and the layers that add it and take it
    away, each with what it adds.
    """

    relu: Call | None
    feeds: list[tuple[Any, np.ndarray]]


def carried(
    graph: Graph,
    call: Call,
    shift: np.ndarray,
    axis: int,
    fates: Mapping[int, Fate],
    takes: Callable[[Any], bool],
) -> Stream | None:
    """How the shift that `call` adds can travel; None where it cannot.

    Args:
        graph: The graph with the call.
        call: One that adds the shift to what it reads.
        shift: Array `(channels,)`.
        axis: The channel axis, from 0.
        fates: What becomes of every normalization.
        takes: Whether a layer may get another bias.
    """
    relu = _relu_above(graph, call, fates)
    wanting = call if relu is None else relu
    stream = wanting.inputs[0]
    feed = _feed(graph, stream, shift, axis, fates, takes)
    if feed is None or id(stream) in graph.output_ids:
        return None
    feeds = [feed]
    for reader in graph.consumers(stream):
        if reader is wanting:
            continue
        back = _through_addition(graph, reader, -shift, axis, fates, takes, besides=stream)
        if back is None:
            return None
        feeds.append(back)
    return Stream(relu, feeds)


def _relu_above(graph: Graph, call: Call, fates: Mapping[int, Fate]) -> Call | None:
    """The ReLU that the call reads, alone."""
    tensor = call.inputs[0]
    while _is_read_once(graph, tensor):
        above = graph.producer(tensor)
        if above is None or not is_plain(above):
            return None
        if clip_bounds(above.operation) is not None:
            return above
        if not _is_gone(above, fates):
            return None
        tensor = above.inputs[0]
    return None


def _feed(graph: Graph, tensor, shift, axis, fates, takes) -> tuple[Any, np.ndarray] | None:
    """The layer whose bias can add the shift to the tensor."""
    above = graph.producer(tensor)
    if above is None:
        return None
    if _is_gone(above, fates):
        return (
            _feed(graph, above.inputs[0], shift, axis, fates, takes)
            if _is_read_once(graph, above.inputs[0])
            else None
        )
    layer, ahead, rank = inside_time(above.operation), time_axes(above.operation), len(tensor.shape)
    if is_plain(above) and absorb.takes_output_affine(layer, axis - ahead, rank - ahead):
        return (above.operation, shift) if takes(above.operation) else None
    return _through_addition(graph, above, shift, axis, fates, takes)


def _through_addition(
    graph: Graph, call: Call, shift, axis, fates, takes, besides=None
) -> tuple[Any, np.ndarray] | None:
    """The layer that can add the shift to the sum: one that feeds a term, other than the term
    `besides`, that nothing else reads.
    """
    is_sum = type(call.operation) is layers.Add or is_keras_operation(call.operation, "Add")
    if (
        not is_sum
        or len(call.inputs) < 2
        or any(term.shape != call.outputs[0].shape for term in call.inputs)
    ):
        return None
    if sum(term is besides for term in call.inputs) > 1:
        return None
    for term in call.inputs:
        if term is not besides and _is_read_once(graph, term):
            found = _feed(graph, term, shift, axis, fates, takes)
            if found is not None:
                return found
    return None


def _is_read_once(graph: Graph, tensor) -> bool:
    return len(graph.consumers(tensor)) == 1 and id(tensor) not in graph.output_ids


def _is_gone(call: Call, fates: Mapping[int, Fate]) -> bool:
    """Whether nothing stands in its place, and it hands on what it reads: a dropout, a
    normalization that the layer before it takes up.
    """
    return (
        call.key in fates and fates[call.key].how in (BEFORE, DROPPED)
    ) or is_identity_at_inference(call)
