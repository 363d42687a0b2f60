"""Every private name of Keras that the package uses, each with what it stands for.

`tests/utils/test_keras_internals.py` has one canary a name: it fails when Keras changes it.
"""

from typing import Any

import keras
from keras.src.backend.common.tensor_attributes import get_tensor_attr
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers import data_adapters

__all__ = ["Functional", "SafeModeScope", "functional_like_constructor"]

# --- the graph of a model -------------------------------------------------------------------------
#
# `Functional` is the class of `keras.Model(inputs, outputs)`; `functional_like_constructor(cls)`
# says whether a subclass can be constructed so. `SafeModeScope(False)` lets a configuration that
# comes from a model in memory hold a lambda.


def functional_of(model: keras.Sequential) -> Any:
    """The Functional that runs a Sequential; None as long as it is not built."""
    return model._functional


def nodes_in_order(functional: Any) -> list:
    """The nodes of a Functional in the order in which its `call` runs them, inputs left out.

    A node is one call of a layer: `operation`, `arguments`, `input_tensors`, `outputs`. A layer may
    have nodes in other models too; these are the model's own, deepest first, and within a depth in
    the order of its layers.
    """
    order = {id(operation): index for index, operation in enumerate(functional.operations)}
    return [
        node
        for _, nodes in sorted(functional._nodes_by_depth.items(), reverse=True)
        for node in sorted(nodes, key=lambda node: order[id(node.operation)])
        if not node.is_input
    ]


def producer_of(tensor: keras.KerasTensor) -> Any:
    """The layer or operation that gave the tensor: for an input of a model, its `InputLayer`."""
    return tensor._keras_history.operation


def is_read(operation: Any) -> bool:
    """Whether anything was called on the outputs of the layer or operation."""
    return bool(operation._outbound_nodes)


def without_calls(operation: Any) -> Any:
    """A copy of an operation that has no state, as if it had never been called."""
    copied = object.__new__(type(operation))
    copied.__dict__.update(operation.__dict__, _inbound_nodes=[], _outbound_nodes=[])
    return copied


# --- layers ---------------------------------------------------------------------------------------


def sublayers(layer: keras.layers.Layer) -> list:
    """The layer and every layer it is made of, in the order in which it tracks them."""
    return list(layer._flatten_layers())


def direct_sublayers(layer: keras.layers.Layer) -> list:
    """The layers that a layer is made of, without those that these are made of."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


# --- tensors --------------------------------------------------------------------------------------


def mask_of(tensor: Any) -> Any:
    """The mask that a tensor carries, or None."""
    return get_tensor_attr(tensor, "_keras_mask")


# --- data -----------------------------------------------------------------------------------------


def data_adapter(data: Any, batch_size: int | None) -> Any:
    """What gives the batches that `fit` would see of the data: `num_batches` (None if it is not
    known), `get_numpy_iterator()`, and `on_epoch_begin()` and `on_epoch_end()` around it.
    """
    return data_adapters.get_data_adapter(data, batch_size=batch_size)


def evaluate_again(model: keras.Model) -> dict[str, float]:
    """Evaluates the model on the validation data of the `fit` that runs; for a callback's
    `on_test_end`.

    `fit` keeps its validation data in an attribute of the model, which `evaluate` uses if told so.
    """
    return model.evaluate(verbose=0, return_dict=True, _use_cached_eval_dataset=True)


def held_by(layer: keras.layers.Layer) -> dict[str, Any]:
    """The attributes of a layer by name. PyTorch keeps layers in a dictionary of its own."""
    return {**vars(layer), **vars(layer).get("_modules", {})}


def blank_double(layer: keras.layers.Layer) -> Any:
    """A double of the layer with the same attributes, to be changed and asked for its
    configuration.
    """
    double = object.__new__(type(layer))
    vars(double).update(vars(layer))
    return double


# --- compilation ----------------------------------------------------------------------------------


def compile_arguments(model: keras.Model) -> dict | None:
    """The arguments that `compile` was called with, as they were given; None for a model that is
    not compiled.
    """
    if not model.compiled or not hasattr(model, "_compile_config"):
        return None
    return dict(model._compile_config.config)


def learning_rate_as_given(optimizer: keras.Optimizer) -> Any:
    """The learning rate of an optimizer: a variable, or the schedule or function it was given."""
    return optimizer._learning_rate


def double_with_rate(optimizer: keras.Optimizer, rate: float) -> keras.Optimizer:
    """A double of the optimizer, to be asked for its configuration, with a number as its rate."""
    double = object.__new__(type(optimizer))
    double.__dict__.update(optimizer.__dict__, _learning_rate=rate)
    return double
