"""A read-only view of a Sequential or Functional model as calls with producers and consumers.

Keras has no public way to walk a graph, so every private name of Keras that the rewriting needs
stands in this file.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.saving.serialization_lib import SafeModeScope

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
        functional = model._functional if self.is_sequential else model
        self.input_struct = functional.input
        self.output_struct = functional.output
        self.inputs = tuple(functional.inputs)
        self.outputs = tuple(functional.outputs)
        self.output_ids = {id(tensor) for tensor in self.outputs}
        order = {id(operation): index for index, operation in enumerate(functional.operations)}
        self.calls = [
            Call(
                node.operation,
                node.arguments.args,
                node.arguments.kwargs,
                tuple(node.input_tensors),
                tuple(node.outputs),
            )
            # A layer may have nodes in other models too; these are the model's own, deepest first,
            # as its `call` runs them, and within a depth in the order of its layers.
            for _, nodes in sorted(functional._nodes_by_depth.items(), reverse=True)
            for node in sorted(nodes, key=lambda node: order[id(node.operation)])
            if not node.is_input
        ]
        self._producers = {id(tensor): call for call in self.calls for tensor in call.outputs}
        self._consumers: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                self._consumers.setdefault(id(tensor), []).append(call)
        self.children: dict[int, Graph] = {}
        for call in self.calls:
            inner = call.operation
            if is_readable(inner) and id(inner) not in self.children:
                self.children[id(inner)] = graphs.get(id(inner)) or Graph(inner, graphs)

    def producer(self, tensor) -> Call | None:
        """The call that computes `tensor`; None for an input of the model."""
        return self._producers.get(id(tensor))

    def consumers(self, tensor) -> list[Call]:
        """The calls that read `tensor`, one entry a reading."""
        return self._consumers.get(id(tensor), [])

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
                given = [given.get(input_operation(tensor).name) for tensor in child.inputs]
        return keras.tree.flatten(given)

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


def read(model: keras.Model) -> Graph:
    """The graph of a model, or one clear error that says why it has none."""
    checked_model(model)
    described = f"Received: model {model.name!r} (of type {type(model).__name__})"
    if (
        isinstance(model, keras.Sequential)
        and type(model).call is keras.Sequential.call
        and model._functional is None
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
            " outputs)`, or take the Sequential and Functional models it is made of, or put"
            f" `keras_ic.IC` into its `call` by hand. {described}"
        )
    return Graph(model, {})


def read_to_change(model: keras.Model) -> Graph:
    """The graph of a model, in which the models that some call runs with `training=True` count as
    layers.

    What is in such a model works as in training, whenever it is called there, and its own calls do
    not tell.
    """
    root = read(model)
    graphs = [
        root,
        *{
            id(child): child
            for graph, call, _ in root.walk()
            if (child := graph.child(call)) is not None
        }.values(),
    ]
    in_training = {
        id(call.operation)
        for graph in graphs
        for call in graph.calls
        if call.kwargs.get("training")
    }
    for graph in graphs:
        graph.children = {
            key: child for key, child in graph.children.items() if key not in in_training
        }
    return root


def is_readable(operation) -> bool:
    """Whether it is a model whose `call` is the run through its graph, and nothing else."""
    if isinstance(operation, keras.Sequential):
        return type(operation).call is keras.Sequential.call and operation._functional is not None
    return isinstance(operation, Functional) and type(operation).call is Functional.call


def input_operation(tensor):
    """The `InputLayer` behind an input of a model."""
    return tensor._keras_history.operation


def functional_class(model: keras.Model):
    """The class to build a Functional model anew with: the model's own where its constructor is
    `(inputs, outputs, name=...)`.
    """
    return type(model) if functional_like_constructor(type(model)) else keras.Model


def is_graph_constructed(model: keras.Model) -> bool:
    """Whether the class of a Sequential can be constructed from a list of layers."""
    return type(model).__init__ is keras.Sequential.__init__


def copy_operation(operation):
    """A new layer or operation of the same configuration and name, without weights yet, in no
    graph.
    """
    if not isinstance(operation, keras.layers.Layer):
        # Operations have no state but their arguments, which not all of them can give back as a
        # configuration.
        copied = object.__new__(type(operation))
        copied.__dict__.update(operation.__dict__, _inbound_nodes=[], _outbound_nodes=[])
        return copied
    return copy_layer(operation, {})


def copy_layer(layer, changes: dict):
    """A new layer from the configuration of `layer`, with `changes` made to it; to that of the
    layer inside `TimeDistributed`.
    """
    if type(layer) is keras.layers.Lambda:
        # A function that went through a configuration has lost the globals it reads. The
        # configuration is still asked for the rest.
        common = keras.layers.Layer.get_config(layer)
        return keras.layers.Lambda(
            layer.function,
            output_shape=layer._output_shape,
            mask=layer.mask,
            arguments=layer.arguments,
            **common,
        )
    try:
        # The configuration comes from the model in memory, not from a file.
        with SafeModeScope(False):
            config = changed = {**layer.get_config()}
            inner = layer
            while isinstance(inner, keras.layers.TimeDistributed):
                inner, changed = inner.layer, changed["layer"]["config"]
            changed.update(changes)
            return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Layer {layer.name!r} cannot be built anew from its configuration; its class needs"
            " `get_config` and `from_config` that give back every argument of its constructor."
            f" Received: layer of type {type(layer).__name__}, and: {error}"
        ) from error


def sublayers(layer) -> list:
    """The layer and every layer it is made of, in the order in which it tracks them."""
    return list(layer._flatten_layers())


def optimizer_anew(optimizer: keras.Optimizer) -> keras.Optimizer:
    """An optimizer of the same configuration, without state. A learning rate that is a schedule or
    a function is the same object.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner, steps = optimizer_anew(optimizer.inner_optimizer), optimizer.dynamic_growth_steps
        return type(optimizer)(
            inner,
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=steps,
            name=optimizer.name,
        )
    rate = optimizer._learning_rate
    if not callable(rate):
        return type(optimizer).from_config(optimizer.get_config())
    # A double with a number in its place is asked for the rest: not every schedule or function has
    # a configuration.
    double = object.__new__(type(optimizer))
    double.__dict__.update(optimizer.__dict__, _learning_rate=0.0)
    return type(optimizer).from_config({**double.get_config(), "learning_rate": rate})


def compile_arguments(model: keras.Model) -> dict | None:
    """The arguments that `compile` was called with, as they were given; None for a model that is
    not compiled.
    """
    if not model.compiled or not hasattr(model, "_compile_config"):
        return None
    return dict(model._compile_config.config)
