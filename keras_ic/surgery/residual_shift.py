"""Shifts that travel along a residual stream into the layers that feed it.

A block of a residual network reads `x + shift`, or `relu(x) + shift`, of a sum `x` which a skip
connection reads too. `relu(x) + shift` is `maximum(x + shift, shift)`, and a layer that feeds the
sum can add the shift in its bias. Where further additions read the sum, a layer on their other side
takes the shift away again, so that what they compute stays as it was.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import layers

from keras_ic.surgery.absorbers import Absorbers
from keras_ic.surgery.affine_map import clip_bounds
from keras_ic.surgery.edits import FoldDecision
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.layer_traits import (
    inside_time,
    is_identity_at_inference,
    is_op_node,
    is_plain,
    time_axes,
)
from keras_ic.surgery.linear_folding import takes_output


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """The ReLU that a shift goes through, if there is one, and the layers that add it and take it
    away, each with what it adds.
    """

    relu: Call | None
    feeds: list[tuple[Any, np.ndarray]]


def carried(
    graph: Graph, call: Call, shift: np.ndarray, axis: int, absorbers: Absorbers
) -> Stream | None:
    """How the shift that `call` adds can travel; None where it cannot.

    Args:
        graph: The graph with the call.
        call: One that adds the shift to what it reads.
        shift: Array `(channels,)`.
        axis: The channel axis, from 0.
        absorbers: Knows what becomes of every normalization, which layers may get another bias, and
            whether a ReLU may be changed.
    """
    search = _Search(graph, axis, absorbers)
    relu = search.relu_before(call) if absorbers.scope.activations else None
    wanting = call if relu is None else relu
    stream = wanting.inputs[0]
    feed = search.feed(stream, shift)
    if feed is None or id(stream) in graph.output_ids:
        return None
    feeds = [feed]
    for reader in graph.consumers(stream):
        if reader is wanting:
            continue
        back = search.through_addition(reader, -shift, besides=stream)
        if back is None:
            return None
        feeds.append(back)
    return Stream(relu, feeds)


@dataclasses.dataclass(frozen=True, eq=False)
class _Search:
    graph: Graph
    axis: int
    absorbers: Absorbers

    def relu_before(self, call: Call) -> Call | None:
        """The ReLU that the call reads, alone."""
        tensor = call.inputs[0]
        while self.graph.is_read_once(tensor):
            producer = self.graph.producer(tensor)
            if producer is None or not is_plain(producer):
                return None
            if clip_bounds(producer.operation) is not None:
                return producer
            if not self._is_gone(producer):
                return None
            tensor = producer.inputs[0]
        return None

    def feed(self, tensor, shift: np.ndarray) -> tuple[Any, np.ndarray] | None:
        """The layer whose bias can add the shift to the tensor."""
        producer = self.graph.producer(tensor)
        if producer is None:
            return None
        if self._is_gone(producer):
            return (
                self.feed(producer.inputs[0], shift)
                if self.graph.is_read_once(producer.inputs[0])
                else None
            )
        layer, ahead = inside_time(producer.operation), time_axes(producer.operation)
        rank = len(tensor.shape)
        if is_plain(producer) and takes_output(layer, self.axis - ahead, rank - ahead):
            changes = self.absorbers.may_change(producer.operation, with_shift=True)
            return (producer.operation, shift) if changes else None
        return self.through_addition(producer, shift)

    def through_addition(
        self, call: Call, shift: np.ndarray, besides=None
    ) -> tuple[Any, np.ndarray] | None:
        """The layer that can add the shift to the sum: one that feeds a term, other than the term
        `besides`, that nothing else reads.
        """
        is_sum = type(call.operation) is layers.Add or is_op_node(call.operation, "Add")
        if (
            not is_sum
            or len(call.inputs) < 2
            or any(term.shape != call.outputs[0].shape for term in call.inputs)
            or sum(term is besides for term in call.inputs) > 1
        ):
            return None
        for term in call.inputs:
            if term is not besides and self.graph.is_read_once(term):
                found = self.feed(term, shift)
                if found is not None:
                    return found
        return None

    def _is_gone(self, call: Call) -> bool:
        """Whether nothing stands in its place, and it hands on what it reads: a dropout, a
        normalization that the layer before it takes up.
        """
        fold = self.absorbers.edits.folds.get(call.key)
        gone = (FoldDecision.INTO_BEFORE, FoldDecision.REMOVED)
        return (fold is not None and fold.decision in gone) or is_identity_at_inference(call)
