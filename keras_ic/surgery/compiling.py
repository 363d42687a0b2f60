"""Compiles a new model as a given one is, with an optimizer and metrics of its own."""

import warnings

import keras

from keras_ic.utils.keras_internals import (
    compile_arguments,
    double_with_rate,
    learning_rate_as_given,
)


def compile_like(old: keras.Model, new: keras.Model) -> None:
    """Compiles `new` with the arguments that `old` was compiled with, if it was; warns where that
    cannot be, and leaves it uncompiled.
    """
    arguments = compile_arguments(old)
    if arguments is None:
        return
    if type(new).compile is not keras.Model.compile:
        _warn(old, "as its class has a `compile` of its own")
        return
    # The optimizer as it is now: its learning rate may have been changed since, and mixed precision
    # has wrapped it.
    arguments["optimizer"] = old.optimizer
    try:
        arguments = keras.tree.map_structure(_rebuilt, arguments)
    except _CannotBeCopiedError as error:
        _warn(old, f"as {error}")
        return
    new.compile(**arguments, auto_scale_loss=False)
    # As Keras does after loading, so that the model can be saved before it is trained.
    if new.optimizer is not None:
        new.optimizer.build(new.trainable_variables)


class _CannotBeCopiedError(Exception):
    """An optimizer or a metric whose configuration does not give it back."""


def _rebuilt(value):
    """The same without the state: optimizers and metrics rebuilt from their configuration, and
    what has no state, losses too, as it is.
    """
    try:
        if isinstance(value, keras.Optimizer):
            return optimizer_rebuilt(value)
        if isinstance(value, keras.Metric):
            return type(value).from_config(value.get_config())
    except Exception as error:  # Whatever a class of the user's own raises.
        what = (
            f"{value.name} ({type(value).__name__}) cannot be rebuilt from its configuration"
            f" ({' '.join(str(error).split())[:200]})"
        )
        raise _CannotBeCopiedError(what) from error
    return value


def _warn(old: keras.Model, reason: str) -> None:
    warnings.warn(
        f"The new model is not compiled, {reason}; compile it. Received: model {old.name!r} of type"
        f" {type(old).__name__}",
        stacklevel=5,
    )


def optimizer_rebuilt(optimizer: keras.Optimizer) -> keras.Optimizer:
    """An optimizer of the same configuration, without state. A learning rate that is a schedule or
    a function is the same object.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner, steps = optimizer_rebuilt(optimizer.inner_optimizer), optimizer.dynamic_growth_steps
        return type(optimizer)(
            inner,
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=steps,
            name=optimizer.name,
        )
    rate = learning_rate_as_given(optimizer)
    if not callable(rate):
        return type(optimizer).from_config(optimizer.get_config())
    # Not every schedule or function has a configuration.
    config = double_with_rate(optimizer, 0.0).get_config()
    return type(optimizer).from_config({**config, "learning_rate": rate})
