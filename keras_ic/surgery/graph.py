"""A read-only view of a Sequential or Functional model as calls with producers and consumers."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from keras_ic.utils.keras_internals import (
    Functional,
    compile_arguments,
    functional_like_constructor,
    functional_of,
    nodes_in_order,
    producer_of,
)
from keras_ic.utils.validation import checked_model


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of one layer or operation. A shared layer has several."""

    operation: Any
    args: tuple
    kwargs: dict
    inputs: tuple
    outputs: tuple

    @property
    def key(self) -> int:
        """What dictionaries of decisions are keyed by."""
        return id(self)


class Graph:
    """The calls of one model in the order in which they run, and the graphs of the models called
    inside it.

    Tensors are the model's own `KerasTensor`s, told apart by identity.
    """

    def __init__(self, model: keras.Model, graphs: dict):
        graphs[id(model)] = self
        self.model = model
        self.is_sequential = isinstance(model, keras.Sequential)
        # A Sequential holds the Functional that runs it.
        functional = functional_of(model) if self.is_sequential else model
        self.input_struct = functional.input
        self.output_struct = functional.output
        self.inputs = tuple(functional.inputs)
        self.outputs = tuple(functional.outputs)
        self.output_ids = {id(tensor) for tensor in self.outputs}
        self.calls = [
            Call(
                node.operation,
                node.arguments.args,
                node.arguments.kwargs,
                tuple(node.input_tensors),
                tuple(node.outputs),
            )
            for node in nodes_in_order(functional)
        ]
        self._producers = {id(tensor): call for call in self.calls for tensor in call.outputs}
        self._consumers: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                self._consumers.setdefault(id(tensor), []).append(call)
        self.children: dict[int, Graph] = {}
        self.callers: list[tuple[Graph, Call]] = []
        for call in self.calls:
            inner = model_called(call)
            if inner is not None:
                child = graphs.get(id(inner)) or Graph(inner, graphs)
                self.children[id(call.operation)] = child
                child.callers.append((self, call))

    def producer(self, tensor) -> Call | None:
        """The call that computes `tensor`; None for an input of the model."""
        return self._producers.get(id(tensor))

    def consumers(self, tensor) -> list[Call]:
        """The calls that read `tensor`, one entry a reading."""
        return self._consumers.get(id(tensor), [])

    def is_read_once(self, tensor) -> bool:
        """Whether one call reads `tensor`, and the model does not give it out."""
        return len(self.consumers(tensor)) == 1 and id(tensor) not in self.output_ids

    def uses(self, tensor) -> int:
        """How often `tensor` is read or given out."""
        return len(self.consumers(tensor)) + sum(tensor is output for output in self.outputs)

    def across(self, tensor) -> list[tuple["Graph", Any]]:
        """The tensors that `tensor` is on the other side of a border of models, each with its
        graph: what the calls of this model pass for it, or the output of the model that gives it.
        """
        call = self.producer(tensor)
        if call is None:
            index = list(map(id, self.inputs)).index(id(tensor))
            passed = [(outer, outer.passed(caller)[index]) for outer, caller in self.callers]
            return [pair for pair in passed if isinstance(pair[1], keras.KerasTensor)]
        child = self.child(call)
        if child is None:
            return []
        return [(child, child.outputs[list(map(id, call.outputs)).index(id(tensor))])]

    def child(self, call: Call) -> "Graph | None":
        """The graph of the model that `call` calls; None where it calls a layer or an operation."""
        return self.children.get(id(call.operation))

    def passed(self, call: Call) -> list:
        """What the call of a model passes for each of that model's inputs; None for an optional one
        that is left out.
        """
        child = self.children[id(call.operation)]
        given = call.args[0] if call.args else call.kwargs["inputs"]
        if isinstance(given, dict):
            # A dictionary may hold more than the model asks for.
            if isinstance(child.input_struct, dict):
                given = {name: given.get(name) for name in child.input_struct}
            else:
                given = [given.get(producer_of(tensor).name) for tensor in child.inputs]
        return keras.tree.flatten(given)

    @property
    def input_names(self) -> set[str]:
        """The names of the model's inputs."""
        return {producer_of(tensor).name for tensor in self.inputs}

    @property
    def is_told_by_names(self) -> bool:
        """Whether `compile` and `fit` know the outputs by the names of their layers: if several
        have no keys, or `compile` was given dictionaries.
        """
        if self.is_sequential or isinstance(self.output_struct, dict):
            return False  # A Sequential has no names of outputs.
        asked = (compile_arguments(self.model) or {}).values()
        return len(self.outputs) > 1 or any(isinstance(value, dict) for value in asked)

    def walk(
        self, prefix: str = "", seen: set | None = None
    ) -> Iterator[tuple["Graph", Call, str]]:
        """Every call of this graph and of those inside it, each graph once, where it first runs:
        `(graph, call, path of the layer)`.
        """
        seen = {id(self)} if seen is None else seen
        for call in self.calls:
            path = f"{prefix}{call.operation.name}"
            yield self, call, path
            child = self.child(call)
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield from child.walk(f"{path}/", seen)

    def layers(self) -> Iterator[tuple["Graph", Call, str]]:
        """As `walk`, the first call of each layer alone; not those of the models walked into."""
        seen: set[int] = set()
        for graph, call, path in self.walk():
            layer = call.operation
            new = id(layer) not in seen and isinstance(layer, keras.layers.Layer)
            seen.add(id(layer))
            if new and graph.child(call) is None:
                yield graph, call, path


def class_to_build(model: keras.Model) -> tuple[Any, list[str]]:
    """The class to build a copy of the model with, and the methods of the model's own class that
    the copy would not have.

    A class of the user's own is kept where it can be constructed from inputs and outputs, or a
    Sequential from a list of layers.
    """
    kind: Any = type(model)
    stock = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
    if stock is keras.Sequential:
        is_kept = kind.__init__ is keras.Sequential.__init__
    else:
        is_kept = functional_like_constructor(kind)
    if is_kept:
        return kind, []
    own = [each for each in kind.__mro__ if not each.__module__.startswith(("keras.", "builtins"))]
    lost = {
        name
        for each in own
        for name in vars(each)
        if not name.startswith("_") and hasattr(stock, name) and callable(getattr(stock, name))
        if getattr(kind, name) is not getattr(stock, name)
    }
    return stock, sorted(lost - {"from_config", "get_config"})


def read(model: keras.Model) -> Graph:
    """The graph of a model, or one clear error that says why it has none."""
    checked_model(model)
    described = f"Received: model {model.name!r} (of type {type(model).__name__})"
    if (
        isinstance(model, keras.Sequential)
        and type(model).call is keras.Sequential.call
        and functional_of(model) is None
    ):
        raise ValueError(
            "The Sequential model is not built, so that the shapes of its tensors are unknown:"
            " start it with a `keras.Input` of one tensor, or call `model.build(input_shape)`."
            f" {described}"
        )
    if not is_readable(model):
        raise ValueError(
            "Only Sequential and Functional models can be rewritten or folded: the calls of a"
            " subclassed model are Python code, not a graph. Build it as `keras.Model(inputs,"
            " outputs)`, or take the Sequential and Functional models it is made of (with"
            " `skip_first=False` those that another one feeds), or put `keras_ic.IC` into its"
            f" `call` by hand. {described}"
        )
    return Graph(model, {})


def read_to_change(model: keras.Model) -> Graph:
    """The graph of a model, in which the models that some call runs with `training=True` count as
    layers.

    What is in such a model works as in training, whenever it is called there, and its own calls do
    not tell.
    """
    root = read(model)
    calls = list(root.walk())
    in_training = {id(call.operation) for _, call, _ in calls if call.kwargs.get("training")}
    for graph in {id(graph): graph for graph, _, _ in calls}.values():
        for key in in_training & set(graph.children):
            child = graph.children.pop(key)
            child.callers = [pair for pair in child.callers if id(pair[1].operation) != key]
    return root


def model_called(call: Call) -> Any:
    """The model that the call runs through its graph, be it at each step of a `TimeDistributed`;
    else None.

    Where the number of steps is open, Keras runs all steps in one, and nothing may be learned or
    drawn in it.
    """
    inner = call.operation
    if type(inner) is keras.layers.TimeDistributed and call.inputs[0].shape[1] is not None:
        inner = inner.layer
    return inner if is_readable(inner) else None


def is_readable(operation) -> bool:
    """Whether it is a model whose `call` is the run through its graph, and nothing else."""
    if isinstance(operation, keras.Sequential):
        return (
            type(operation).call is keras.Sequential.call and functional_of(operation) is not None
        )
    return isinstance(operation, Functional) and type(operation).call is Functional.call
