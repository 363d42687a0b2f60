"""Carries a plan out: builds the new model beside the given one."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras

from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.surgery import weights as weights_of
from keras_ic.surgery.absorb import bias_changes
from keras_ic.surgery.affine import Affine
from keras_ic.surgery.clip import Clip
from keras_ic.surgery.compiling import compile_like
from keras_ic.surgery.graph import (
    Call,
    Graph,
    copy_layer,
    copy_operation,
    functional_class,
    input_operation,
    is_graph_constructed,
    sublayers,
)
from keras_ic.surgery.kinds import WEIGHT_LAYERS, inside_time, is_ic, time_axes
from keras_ic.surgery.normalization import AFFINE, Fate
from keras_ic.surgery.plan import Plan, plan
from keras_ic.surgery.policy import Site
from keras_ic.surgery.sites import Insertion

if TYPE_CHECKING:
    from keras_ic.surgery.fold_plan import FoldPlan
    from keras_ic.surgery.folding import Clipping


@dataclasses.dataclass
class Parts:
    """The new layers by the old ones.

    `layers` and `models` as pairs by the id of the old one, `ics` by insertion, `affines` by the
    plan's key of a normalization, `clips` by call.
    """

    layers: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    models: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    ics: dict[int, tuple[Insertion, Any]] = dataclasses.field(default_factory=dict)
    affines: dict[Any, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    clips: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)


class Builder:
    """Builds the models of one plan, of a rewriting or of a folding, each nested model and shared
    layer once.
    """

    def __init__(self, plan: "Plan | FoldPlan"):
        self.plan = plan
        self.parts = Parts()
        self._initializers: list[tuple[Any, str, Any]] = []
        self._name_holders: dict[int, Any] = {}

    def model(self, graph: Graph) -> Any:
        """The new model of a graph."""
        if id(graph.model) not in self.parts.models:
            new = self._sequential(graph) if graph.is_sequential else self._functional(graph)
            self.parts.models[id(graph.model)] = (graph.model, new)
        return self.parts.models[id(graph.model)][1]

    def _functional(self, graph: Graph):
        values: dict[int, Any] = {}
        for tensor in graph.inputs:
            values[id(tensor)] = self._input(tensor)
        self._run(
            graph,
            values,
            lambda operation, args, kwargs, outputs: keras.tree.flatten(operation(*args, **kwargs)),
        )
        for tensor in graph.inputs:
            if not values[id(tensor)]._keras_history.operation._outbound_nodes:
                # Keras 3.12 refuses an input that nothing is computed from.
                keras.layers.Identity()(values[id(tensor)])
        inputs, outputs = (
            keras.tree.map_structure(lambda tensor: values[id(tensor)], part)
            for part in (graph.input_struct, graph.output_struct)
        )
        return functional_class(graph.model)(inputs, outputs, name=graph.model.name)

    def _sequential(self, graph: Graph):
        # The list of layers is all that a Sequential needs; calling them here too would leave each
        # with a second, dead call.
        stack = [self._input(graph.inputs[0])]

        def append(operation, args, kwargs, outputs):
            # Op nodes in a Sequential compute masks, which the layers of the new one ask for
            # themselves.
            if isinstance(operation, keras.layers.Layer):
                stack.append(operation)
            return outputs

        self._run(graph, {id(tensor): tensor for tensor in graph.inputs}, append)
        if len(stack) == 1:
            stack.append(keras.layers.Identity())  # Keras does not build a Sequential of nothing.
        kind = type(graph.model) if is_graph_constructed(graph.model) else keras.Sequential
        return kind(stack, name=graph.model.name)

    def _run(self, graph: Graph, values: dict[int, Any], apply: Callable) -> None:
        """Runs the graph as the plan has it; `values` holds the new tensors by the id of the old,
        and gets the others.
        """
        done: dict[tuple, Any] = {}

        def reading(call: Call, tensor):
            read = self.plan.sites.readings.get((call.key, id(tensor)))
            if read is None:
                return values[id(tensor)]
            key: tuple = (id(read.insertion),)
            if key not in done:
                (done[key],) = apply(
                    self._ic(read.insertion),
                    (values[id(read.insertion.tensor)],),
                    {},
                    (read.insertion.tensor,),
                )
            for step in read.steps:
                above, key = done[key], (*key, step.key)
                if key not in done:
                    args, kwargs = _replace_tensors(step, lambda tensor, above=above: above)
                    (done[key],) = apply(self._layer(step.operation), args, kwargs, step.outputs)
            return done[key]

        for call in self._needed(graph):
            fate = self.plan.normalizations.fates.get(call.key)
            clip = self.plan.clips.get(call.key)
            if fate is not None and fate.is_bypassed:
                outputs = [values[id(call.inputs[0])]]
            elif fate is not None and fate.is_replaced:
                outputs = apply(
                    self._affine(call, fate), (values[id(call.inputs[0])],), {}, call.outputs
                )
            elif clip is not None and not clip.is_fused:
                outputs = apply(
                    self._clip(call, clip), (values[id(call.inputs[0])],), {}, call.outputs
                )
            else:
                child = graph.child(call)
                operation = self.model(child) if child is not None else self._layer(call.operation)
                args, kwargs = _replace_tensors(
                    call, lambda tensor, call=call: reading(call, tensor)
                )
                outputs = apply(operation, args, kwargs, call.outputs)
                if clip is not None:
                    outputs = apply(self._clip(call, clip), tuple(outputs), {}, call.outputs)
            if call.key in self.plan.named:
                outputs = apply(self._name_holder(call), tuple(outputs), {}, call.outputs)
            values.update(zip(map(id, call.outputs), outputs, strict=True))

    def _needed(self, graph: Graph) -> list[Call]:
        """The calls that the outputs still need: shape-only steps that an IC layer went above may
        have lost their readers.
        """
        live = set(graph.output_ids)
        needed = []
        for call in reversed(graph.calls):
            if any(id(tensor) in live for tensor in call.outputs):
                needed.append(call)
                for tensor in call.inputs:
                    read = self.plan.sites.readings.get((call.key, id(tensor)))
                    live.add(id(tensor if read is None else read.insertion.tensor))
        return needed[::-1]

    def _affine(self, call: Call, fate: Fate):
        key, old = self.plan.affine_key(call), call.operation
        if key not in self.parts.affines:
            axis = inside_time(old).axis
            axis += time_axes(old) if axis >= 0 else 0
            new = Affine(
                axis,
                use_scale=fate.how == AFFINE,
                name=self.plan.affine_names[key],
                dtype=old.dtype_policy,
            )
            self.parts.affines[key] = (old, new)
        return self.parts.affines[key][1]

    def _name_holder(self, call: Call):
        """What has the name of a layer that leaves, one for all of its calls."""
        old = call.operation
        if id(old) not in self._name_holders:
            self._name_holders[id(old)] = keras.layers.Identity(
                name=old.name, dtype=old.dtype_policy.name
            )
        return self._name_holders[id(old)]

    def _clip(self, call: Call, clip: "Clipping"):
        # An op node has no dtype policy.
        dtype = getattr(call.operation, "dtype_policy", None) or call.outputs[0].dtype
        new = Clip(clip.axis, use_upper=clip.upper is not None, name=clip.name, dtype=dtype)
        self.parts.clips[call.key] = (clip, new)
        return new

    def _layer(self, old):
        if id(old) not in self.parts.layers:
            changes = (
                bias_changes(inside_time(old)) if id(old) in self.plan.normalizations.biased else {}
            )
            if id(old) in self.plan.unfused:
                changes["activation"] = None
            new = copy_layer(old, changes) if changes else copy_operation(old)
            self.parts.layers[id(old)] = (old, new)
            if self.plan.policy.weights != "fresh" and type(old) in WEIGHT_LAYERS:
                self._postpone_initializers(new)
        return self.parts.layers[id(old)][1]

    def _postpone_initializers(self, layer):
        """Has the layer start from zeros: random numbers would be overwritten at once.
        `restore_initializers` gives it its initializers back.
        """
        for name, value in list(vars(layer).items()):
            if name.endswith("_initializer"):
                self._initializers.append((layer, name, value))
                setattr(layer, name, keras.initializers.Zeros())

    def restore_initializers(self):
        """To be called when all layers are built."""
        for layer, name, value in self._initializers:
            setattr(layer, name, value)

    def _input(self, tensor):
        old = input_operation(tensor)
        new = copy_operation(old)
        # One for each graph: two models may be built on the same Input.
        self.parts.layers[id(new)] = (old, new)
        return new.output

    def _ic(self, insertion: Insertion):
        if id(insertion) not in self.parts.ics:
            dtype = insertion.layer.dtype_policy
            if dtype.quantization_mode is not None:
                # The layer is quantized, what it reads is not: "int8_from_float32" names both.
                dtype = dtype.name.rpartition("_from_")[2]
            ic = IndependentComponent(
                insertion.rate, axis=insertion.axis, name=insertion.name, dtype=dtype
            )
            self.parts.ics[id(insertion)] = (insertion, ic)
        return self.parts.ics[id(insertion)][1]


def _replace_tensors(call: Call, new: Callable) -> tuple[tuple, dict]:
    def replace(leaf):
        return new(leaf) if isinstance(leaf, keras.KerasTensor) else leaf

    return keras.tree.map_structure(replace, call.args), keras.tree.map_structure(
        replace, call.kwargs
    )


def build(plan: "Plan | FoldPlan") -> keras.Model:
    """The model that a plan describes. The plan's own model is not changed."""
    builder = Builder(plan)
    new = builder.model(plan.graph)
    builder.restore_initializers()
    weights_of.transfer(plan, builder.parts)
    _set_trainable(builder.parts)
    for old, made in builder.parts.models.values():
        made.dtype_policy = old.dtype_policy
    compile_like(plan.model, new)
    return new


def _set_trainable(parts: Parts) -> None:
    # Setting a model's flag sets those of its layers too, so that models come first, the outer
    # before the inner.
    for old, new in reversed(parts.models.values()):
        new.trainable = old.trainable
    for old, new in parts.affines.values():
        new.trainable = old.trainable
    for insertion, ic in parts.ics.values():
        ic.trainable = insertion.layer.trainable
    for old, new in parts.layers.values():
        if isinstance(old, keras.layers.Layer):
            for old_part, new_part in zip(sublayers(old), sublayers(new), strict=True):
                new_part.trainable = old_part.trainable


def rewrite(
    model: keras.Model,
    rate: float | Callable[[Site], float] = 0.05,
    *,
    weights: str = "fresh",
    normalization: str = "remove",
    skip_first: bool = True,
    skip: Callable[[keras.layers.Layer], bool] | None = None,
    weight_layers: Sequence[type] = (),
    share: bool = True,
    bias: str = "repair",
) -> keras.Model:
    """Rewrites a model into its IC form: BatchNormalization out, one IC layer before each weight
    layer.

    The given model is not changed. The new one has its name, its class where that can be
    constructed from inputs and outputs, its names of layers, regularizers, constraints, dtype
    policies, trainable flags and compile configuration, with a fresh optimizer. An IC layer is
    frozen where the weight layer behind it is. Where a layer leaves that gave one of several
    outputs its name, an `Identity` has that name. What is done to a model can be read first, with
    `keras_ic.plan`.

    With `weights="preserve"` the new model computes what the given one does at inference. Its IC
    layers then start as identities, with a moving mean of 0 and a moving variance of 1. Before
    training, set these from data with `keras_ic.calibrate`, which keeps the function.

    Args:
        model: A Sequential or Functional model, built.
        rate: See `keras_ic.plan`, as for the other arguments.
        weights: `"fresh"`, `"copy"` or `"preserve"`. State of preprocessing layers (the mean of
            `Normalization`, vocabularies) is always copied.
        normalization: `"remove"` or `"keep"`.
        skip_first: Boolean, whether weight layers that read the raw input get no IC layer.
        skip: Function of a weight layer that returns True where it is to get no IC layer.
        weight_layers: Tuple of further classes of layers that count as weight layers.
        share: Boolean, whether weight layers that read the same tensor share one IC layer.
        bias: `"repair"` or `"leave"`.

    Returns:
        A new model: a Sequential for a Sequential, a Functional for a Functional.

    Raises:
        ValueError: For an argument that the above excludes, a subclassed or unbuilt model, one
            without weight layers, one in which there is nothing to change, such as a rewritten one,
            and one with a layer that cannot be built anew from its configuration.

    Warns:
        UserWarning: For a compiled model with an optimizer or a metric that cannot be built anew
            from its configuration, or with a `compile` of its class's own: the new model is not
            compiled.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(16, 3, use_bias=False, name="conv1"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(32, 3, name="conv2"),
        ]
    )
    ic_model = keras_ic.rewrite(model, 0.05, weights="preserve")
    assert [layer.name for layer in ic_model.layers][2:] == ["conv2_ic", "conv2"]
    x = np.ones((2, 32, 32, 3), "float32")
    assert np.allclose(ic_model.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
    """
    decided = plan(
        model,
        rate,
        weights=weights,
        normalization=normalization,
        skip_first=skip_first,
        skip=skip,
        weight_layers=weight_layers,
        share=share,
        bias=bias,
    )
    if not decided.changes:
        rewritten = any(is_ic(call.operation) for _, call, _ in decided.graph.walk())
        state = "is in IC form already" if rewritten else "has nothing that could be changed"
        reasons = "; ".join(f"{skip.layer}: {skip.reason}" for skip in decided.skipped)
        raise ValueError(
            f"The model {state}, so that there is nothing to rewrite. Received: model"
            f" {model.name!r}, with {reasons}"
        )
    return build(decided)
