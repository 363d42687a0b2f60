"""What is known of each tensor of a model from where it comes."""

from typing import Any, NamedTuple

from keras_ic.surgery.edits import Edits
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.layer_traits import (
    Effect,
    effect_of,
    gives_distribution,
    is_ic,
    is_identity_at_inference,
    is_learned,
    is_op_node,
    is_plain,
    is_shape_step,
)


class _State(NamedTuple):
    """Whether nothing learned lies between the tensor and the model's inputs, whether an IC layer
    has just treated it, and whether it holds shares that sum to 1.
    """

    raw: bool
    covered: bool
    distribution: bool


_INPUT = _State(raw=True, covered=False, distribution=False)


class Flow:
    """Which tensors of a model, and of the models in it, are raw, covered or distributions.

    A model that is called several times may get several sorts of tensors: its inner tensors are raw
    or distributions if they are so in any call, and covered only if they are so in every call.
    """

    def __init__(self, edits: Edits):
        self._edits = edits
        self._uncovered: set[int] = set()
        self.raw: set[int] = set()
        self.covered: set[int] = set()
        self.distributions: set[int] = set()
        self._run(edits.graph, [_INPUT] * len(edits.graph.inputs))

    def _run(self, graph: Graph, inputs: list[_State]) -> list[_State]:
        """Marks the tensors of the graph, given the states of its inputs; returns those of its
        outputs.
        """
        states = {id(tensor): state for tensor, state in zip(graph.inputs, inputs, strict=True)}
        for call in graph.calls:
            child = graph.child(call)
            if child is not None:
                passed = [states.get(id(tensor), _INPUT) for tensor in graph.passed(call)]
                outputs = self._run(child, passed)
            else:
                outputs = [self._state_after(call, states)] * len(call.outputs)
            states.update(zip(map(id, call.outputs), outputs, strict=True))
        self.raw |= {key for key, state in states.items() if state.raw}
        self.distributions |= {key for key, state in states.items() if state.distribution}
        self._uncovered |= {key for key, state in states.items() if not state.covered}
        self.covered = (self.covered | set(states)) - self._uncovered
        return [states[id(tensor)] for tensor in graph.outputs]

    def _state_after(self, call: Call, states: dict[int, Any]) -> _State:
        given = [states[id(tensor)] for tensor in call.inputs]
        first = given[0] if given else _INPUT
        passes = is_shape_step(call) or is_identity_at_inference(call)
        moves = passes or effect_of(call) in (Effect.PERMUTE, Effect.RESHAPE)
        # Attention that is normalized along two axes divides a softmax by its sums.
        divides = is_op_node(call.operation, "Divide", "TrueDivide")
        return _State(
            raw=all(state.raw for state in given) and not is_learned(call.operation),
            covered=is_ic(call.operation)
            or ((passes or self._edits.is_bypassed(call)) and first.covered),
            distribution=gives_distribution(call)
            or (((moves and is_plain(call)) or divides) and first.distribution),
        )
