"""Builds the model that `Edits` describe, beside the given one."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_ic.layers.channel_affine import ChannelAffine, ChannelClip
from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.surgery.compiling import compile_like
from keras_ic.surgery.edits import Clip, Edits, Fold, FoldDecision, Insertion
from keras_ic.surgery.graph import Call, Graph, class_to_build, read
from keras_ic.surgery.layer_copy import copy_layer, copy_operation
from keras_ic.surgery.layer_traits import WEIGHT_LAYERS, inside_time, time_axes
from keras_ic.surgery.linear_folding import bias_changes
from keras_ic.surgery.weights import Parts, paired_weights, transfer
from keras_ic.utils.keras_internals import (
    copy_decay_exclusions,
    is_read,
    producer_of,
    sublayers,
)


def build(edits: Edits) -> keras.Model:
    """The model that the edits describe. The given model is not changed."""
    builder = _Builder(edits)
    new = builder.model_of_all()
    builder.restore_initializers()
    transfer(edits, builder.parts)
    _set_trainable(builder.parts)
    for old, made in builder.parts.models.values():
        made.dtype_policy = old.dtype_policy
    compile_like(edits.graph.model, new)
    _exclude_from_weight_decay(edits.graph.model, new, builder.parts)
    _, lost = class_to_build(edits.graph.model)
    if lost:
        old = edits.graph.model
        warnings.warn(
            f"The new model is a plain {type(new).__name__}: a {type(old).__name__} cannot be"
            f" constructed from inputs and outputs, so that its {', '.join(lost)} are lost, and"
            " the same `compile` trains another objective. Rewrite or fold the Sequential and"
            " Functional models that it is made of, and put them into your class. Received: model"
            f" {old.name!r} of type {type(old).__name__}",
            stacklevel=3,
        )
    return new


def _exclude_from_weight_decay(old: keras.Model, new: keras.Model, parts: Parts) -> None:
    """Has the new optimizer leave alone what the given one does, which no configuration says."""
    if not new.compiled or new.optimizer is None:
        return
    layers = [pair for pair in parts.layers.values() if isinstance(pair[0], keras.layers.Layer)]
    pairs = [pair for given, made in layers for pair in paired_weights(given, made)]
    lost = copy_decay_exclusions(old.optimizer, new.optimizer, pairs)
    if lost:
        warnings.warn(
            f"{len(lost)} variables that the given optimizer excludes from weight decay have no"
            " counterpart in the new model; compile it with an optimizer that excludes the new"
            f" layers' variables. Received: {', '.join(variable.path for variable in lost[:5])}",
            stacklevel=4,
        )


def check_copies(edits: Edits) -> None:
    """Raises the error of `build` for a layer of a class of the user's own that cannot be built
    again, so that a plan promises nothing that the builder refuses.
    """
    for _, call, _ in edits.graph.layers():
        own = {type(part).__module__.split(".")[0] for part in sublayers(call.operation)}
        if own - {"keras", "keras_ic"}:
            copy_layer(call.operation, {}, _copy_model)


def _copy_model(model: keras.Model) -> keras.Model:
    """A model with the same graph, and new weights."""
    return _Builder(Edits(read(model), "fresh")).model_of_all()


class _Builder:
    """Builds the models of one plan, each nested model and shared layer once."""

    def __init__(self, edits: Edits):
        self.edits = edits
        self._named = edits.name_holders()
        self._freed = edits.freed()
        self.parts = Parts()
        self._initializers: list[tuple[Any, str, Any]] = []

    def model_of_all(self) -> Any:
        """The new model."""
        return self.model(self.edits.graph)

    def model(self, graph: Graph) -> Any:
        """The new model of a graph."""
        make = self._sequential if graph.is_sequential else self._functional
        return _once(self.parts.models, id(graph.model), graph.model, lambda: make(graph))

    def _operation(self, graph: Graph, call: Call):
        """What is called in its place: a layer, a model, or the `TimeDistributed` around one."""
        old, child = call.operation, graph.child(call)
        if child is None:
            return self._layer(old)
        model = self.model(child)
        if old is child.model:
            return model
        return _once(
            self.parts.models,
            id(old),
            old,
            lambda: type(old)(model, name=old.name, dtype=old.dtype_policy),
        )

    def _functional(self, graph: Graph):
        values: dict[int, Any] = {}
        for tensor in graph.inputs:
            values[id(tensor)] = self._input(tensor)

        def run(operation, outputs, *args, **kwargs):
            return keras.tree.flatten(operation(*args, **kwargs))

        self._run(graph, values, run)
        for tensor in graph.inputs:
            if not is_read(producer_of(values[id(tensor)])):
                # Keras 3.12 refuses an input that nothing is computed from.
                keras.layers.Identity()(values[id(tensor)])
        inputs, outputs = (
            keras.tree.map_structure(lambda tensor: values[id(tensor)], part)
            for part in (graph.input_struct, graph.output_struct)
        )
        kind, _ = class_to_build(graph.model)
        return kind(inputs, outputs, name=graph.model.name)

    def _sequential(self, graph: Graph):
        # The list of layers is all that a Sequential needs; calling them here too would leave each
        # with a second, dead call.
        stack = [self._input(graph.inputs[0])]

        def append(operation, outputs, *args, **kwargs):
            # Op nodes in a Sequential compute masks, which the layers of the new one ask for
            # themselves.
            if isinstance(operation, keras.layers.Layer):
                stack.append(operation)
            return outputs

        self._run(graph, {id(tensor): tensor for tensor in graph.inputs}, append)
        if len(stack) == 1:
            stack.append(keras.layers.Identity())  # Keras does not build a Sequential of nothing.
        kind, _ = class_to_build(graph.model)
        return kind(stack, name=graph.model.name)

    def _run(self, graph: Graph, values: dict[int, Any], apply: Callable) -> None:
        """Runs the graph as the plan has it; `values` holds the new tensors by the id of the old,
        and gets the others. `apply` gets an operation, the old outputs, and its arguments.
        """
        done: dict[tuple, Any] = {}

        def reading(call: Call, tensor):
            """What the call reads in place of the tensor."""
            read = self.edits.readings.get((call.key, id(tensor)))
            if read is None:
                return values[id(tensor)]
            source = read.insertion.tensor
            key: tuple = (id(read.insertion),)
            if key not in done:
                (done[key],) = apply(self._ic(read.insertion), [source], values[id(source)])
            for step in read.steps:
                producer, key = done[key], (*key, step.key)
                if key not in done:
                    args, kwargs = _replace_tensors(step, lambda tensor, given=producer: given)
                    operation = self._layer(step.operation)
                    (done[key],) = apply(operation, step.outputs, *args, **kwargs)
            return done[key]

        for call in self._needed(graph):
            edits, key = self.edits, call.key
            fold, clip = edits.folds.get(key), edits.clips.get(key)
            if edits.is_bypassed(call):
                outputs = [values[id(call.inputs[0])]]
            elif fold is not None and fold.is_replaced:
                affine = self._affine(call, fold)
                outputs = apply(affine, call.outputs, values[id(call.inputs[0])])
            elif clip is not None and not clip.is_fused:
                outputs = [values[id(call.inputs[0])]]
            else:
                args, kwargs = _replace_tensors(call, lambda tensor, by=call: reading(by, tensor))
                outputs = apply(self._operation(graph, call), call.outputs, *args, **kwargs)
            if clip is not None:
                outputs = apply(self._clip(call, clip), call.outputs, *outputs)
            if key in self._named:
                outputs = apply(self._name_holder(call), call.outputs, *outputs)
            values.update(zip(map(id, call.outputs), outputs, strict=True))

    def _needed(self, graph: Graph) -> list[Call]:
        """The calls that the outputs still need: shape-only steps that an IC layer went before may
        have lost their readers.
        """
        live = set(graph.output_ids)
        needed = []
        for call in reversed(graph.calls):
            if any(id(tensor) in live for tensor in call.outputs):
                needed.append(call)
                for tensor in call.inputs:
                    read = self.edits.readings.get((call.key, id(tensor)))
                    live.add(id(tensor if read is None else read.insertion.tensor))
        return needed[::-1]

    def _affine(self, call: Call, fold: Fold):
        key, old = self.edits.affine_key(call), call.operation

        def make():
            axis = inside_time(old).axis
            return ChannelAffine(
                axis + time_axes(old) if axis >= 0 else axis,
                use_scale=fold.decision is FoldDecision.AFFINE,
                name=self.edits.affine_names[key],
                dtype=old.dtype_policy,
            )

        return _once(self.parts.affines, key, old, make)

    def _name_holder(self, call: Call):
        """What has the name of a layer that leaves, one for all of its calls."""
        old = call.operation
        make = keras.layers.Identity
        return _once(
            self.parts.name_holders,
            id(old),
            old,
            lambda: make(name=old.name, dtype=old.dtype_policy.name),
        )

    def _clip(self, call: Call, clip: Clip):
        # An op node has no dtype policy.
        dtype = getattr(call.operation, "dtype_policy", None) or call.outputs[0].dtype
        new = ChannelClip(clip.axis, use_upper=clip.upper is not None, name=clip.name, dtype=dtype)
        self.parts.clips[call.key] = (clip, new)
        return new

    def _layer(self, old):
        def make():
            changes = bias_changes(inside_time(old)) if id(old) in self.edits.biased else {}
            changes.update(dict.fromkeys(self._freed.get(id(old), ())))
            if id(old) in self.edits.unfused:
                changes["activation"] = None
            new = (
                copy_layer(old, changes, _copy_model)
                if changes
                else copy_operation(old, _copy_model)
            )
            if self.edits.weights != "fresh" and type(old) in WEIGHT_LAYERS:
                self._postpone_initializers(new)
            return new

        return _once(self.parts.layers, id(old), old, make)

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
        old = producer_of(tensor)
        new = copy_operation(old, _copy_model)
        # One for each graph: two models may be built on the same Input.
        self.parts.layers[id(new)] = (old, new)
        return new.output

    def _ic(self, insertion: Insertion):
        def make():
            dtype = insertion.layer.dtype_policy
            if dtype.quantization_mode is not None:
                # The layer is quantized, what it reads is not: "int8_from_float32" names both.
                dtype = dtype.name.rpartition("_from_")[2]
            assert insertion.rate is not None
            return IndependentComponent(
                insertion.rate,
                axis=insertion.axis,
                name=insertion.name,
                dtype=dtype,
                seed=insertion.seed,
            )

        return _once(self.parts.ics, id(insertion), insertion, make)


def _once(made: dict, key, old, make: Callable):
    """The new one in the pair of this key, made the first time."""
    if key not in made:
        made[key] = (old, make())
    return made[key][1]


def _replace_tensors(call: Call, new: Callable) -> tuple[tuple, dict]:
    def replace(leaf):
        return new(leaf) if isinstance(leaf, keras.KerasTensor) else leaf

    return keras.tree.map_structure(replace, call.args), keras.tree.map_structure(
        replace, call.kwargs
    )


def _set_trainable(parts: Parts) -> None:
    # Setting a model's flag sets those of its layers too, so that models come first, the outer
    # before the inner.
    for old, new in reversed(parts.models.values()):
        new.trainable = old.trainable
    for old, new in itertools.chain(parts.affines.values(), parts.name_holders.values()):
        new.trainable = old.trainable
    for insertion, ic in parts.ics.values():
        ic.trainable = insertion.layer.trainable
    for old, new in parts.layers.values():
        if isinstance(old, keras.layers.Layer):
            for old_part, new_part in zip(sublayers(old), sublayers(new), strict=True):
                new_part.trainable = old_part.trainable
            for given, taken in paired_weights(old, new):
                if given.trainable != taken.trainable:
                    taken.trainable = given.trainable
