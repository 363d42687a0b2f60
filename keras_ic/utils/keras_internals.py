"""Every private name of Keras that the package uses, each with what it stands for.

`tests/utils/test_keras_internals.py` has one canary a name: it fails when Keras changes it.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr
from keras.src.losses.loss import apply_mask
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


# What Keras hangs on a tensor: the mask, and the values before a softmax or a sigmoid, from which
# it computes cross entropies.
TENSOR_ATTRIBUTES = ("_keras_mask", "_keras_logits")


# The method of a model that builds metrics, losses and optimizer from a first batch. Under
# MultiWorkerMirroredStrategy it fails (keras#20585).
SYMBOLIC_BUILD = "_maybe_symbolic_build"


def is_fully_built(model: keras.Model) -> bool:
    """Whether the metrics, the losses and the optimizer of a compiled model are built."""
    parts = (model._compile_metrics, model._compile_loss, model.optimizer)
    return all(part is None or part.built for part in parts)


def build_from_batch(model: keras.Model, batch: Any) -> None:
    """Builds metrics, losses and optimizer of a compiled model for batches like the given one."""
    model._symbolic_build(data_batch=batch)


def initial_epoch(model: keras.Model) -> int:
    """The epoch at which the running `fit` begins, if a callback has set one; else 0."""
    return model._initial_epoch or 0


def set_initial_epoch(model: keras.Model, epoch: int) -> None:
    """Has the running `fit` begin at an epoch, as `BackupAndRestore` does in `on_train_begin`.

    Keras reads 0 as none.
    """
    model._initial_epoch = epoch or None


def run_in_training(model: keras.Model, x: Any) -> Any:
    """The outputs of a model in training; its `call` may have no `training` argument."""
    return model(x, training=True) if model._call_has_training_arg else model(x)


def loss_in_training(model: keras.Model, x: Any, y: Any, outputs: Any, sample_weight: Any) -> Any:
    """The loss of a batch; a `compute_loss` of the model's own may have no `training` argument."""
    return model._compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)


def loss_tracker(model: keras.Model) -> keras.Metric:
    """The metric `loss` of a compiled model."""
    return model._loss_tracker


def compiled_losses(model: keras.Model) -> list[keras.Loss]:
    """The losses that a model was compiled with, one an output that has one; none before they are
    built.
    """
    compiled = model._compile_loss
    return [] if compiled is None else [entry.loss for entry in compiled._flat_losses or ()]


def loss_trackers(model: keras.Model) -> list[keras.Metric]:
    """The metrics of the losses of a model with several outputs, in the order of
    `compiled_losses`; none for a single output.
    """
    return [] if model._compile_loss is None else list(model._compile_loss.metrics)


def sum_of_losses(
    model: keras.Model, y: Any, outputs: Any, sample_weight: Any, change: Callable
) -> Any:
    """What the compiled losses add up to if each of them is changed; no metric is updated.

    Args:
        model: A compiled `keras.Model` whose losses are built.
        y: The targets, as `fit` gets them.
        outputs: The outputs of the model.
        sample_weight: The weights of the examples, as `fit` gets them, or None.
        change: Callable that gets the place of a loss in `compiled_losses`, the loss, and the
            targets, outputs and weights that the loss is called with, and returns the value to take
            for it.

    Returns:
        The sum of the values, each times its weight in `loss_weights`.
    """
    compiled = model._compile_loss
    entries = [
        entry._replace(loss=functools.partial(change, place, entry.loss))
        for place, entry in enumerate(compiled._flat_losses)
    ]
    changed = object.__new__(type(compiled))
    changed.__dict__.update(compiled.__dict__, _flat_losses=entries, _metrics=[None] * len(entries))
    return changed.call(y, outputs, sample_weight)


def tensor_attributes(tensor: Any) -> dict[str, Any]:
    """What Keras has hung on a tensor. It is lost where tensors are concatenated and where they
    leave a `tf.function`.
    """
    found = {name: get_tensor_attr(tensor, name) for name in TENSOR_ATTRIBUTES}
    return {name: value for name, value in found.items() if value is not None}


def with_attributes(tensor: Any, attributes: dict[str, Any]) -> Any:
    """The tensor, on which `tensor_attributes` of another one now hang."""
    for name, value in attributes.items():
        set_tensor_attr(tensor, name, value)
    return tensor


def weights_under_mask(sample_weight: Any, mask: Any, dtype: str) -> Any:
    """The weights that Keras's losses and metrics multiply their values with, 0 where the mask is;
    None without weights and mask.
    """
    return apply_mask(sample_weight, mask, dtype=dtype, reduction="sum")


def copy_decay_exclusions(
    old: keras.Optimizer | None,
    new: keras.Optimizer | None,
    pairs: Iterable[tuple[keras.Variable, keras.Variable]],
) -> list[keras.Variable]:
    """Excludes from the weight decay of an optimizer what another one excludes.

    The configuration of an optimizer does not have what `exclude_from_weight_decay` was told, and
    the method refuses an optimizer that is built. Names, which are patterns, are taken over as they
    are; variables by the pairs.

    Args:
        old: The optimizer to take the exclusions from.
        new: An optimizer of the same configuration, built or not.
        pairs: Iterable of pairs of a variable of the old model and the one in its place in the new
            model.

    Returns:
        List of the old variables that are excluded one by one and that no pair names.
    """
    pairs, rest = list(pairs), []
    for one, other in zip(_with_inner(old), _with_inner(new), strict=True):
        places = {one._var_key(before): after for before, after in pairs}
        excluded: set = getattr(one, "_exclude_from_weight_decay", set())
        other._exclude_from_weight_decay = {
            other._var_key(places[key]) for key in excluded if key in places
        }
        other._exclude_from_weight_decay_pattern = getattr(
            one, "_exclude_from_weight_decay_pattern", None
        )
        other._exclude_from_weight_decay_cache = {}
        known = {one._var_key(variable): variable for variable in one._trainable_variables}
        rest += [known[key] for key in known if key in excluded and key not in places]
    return rest


def _with_inner(optimizer: keras.Optimizer | None) -> list[keras.Optimizer]:
    """An optimizer and those that it wraps, as LossScaleOptimizer and MultiOptimizer do."""
    if optimizer is None:
        return []
    inner = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())]
    return [optimizer, *(each for found in inner for each in _with_inner(found))]
