"""Compiles a new model as a given one is, with an optimizer, metrics and losses of its own."""

import warnings

import keras

from keras_ic.surgery.graph import compile_arguments


def compile_like(old: keras.Model, new: keras.Model) -> None:
    """Compiles `new` with the arguments that `old` was compiled with, if it was."""
    arguments = compile_arguments(old)
    if arguments is None:
        return
    if type(new).compile is not keras.Model.compile:
        warnings.warn(
            f"The rewritten model is not compiled, as its class has a `compile` of its own; call it. Received: model {old.name!r} of type "
            f"{type(old).__name__}",
            stacklevel=4,
        )
        return
    # The optimizer as it is now: its learning rate may have been changed since, and mixed precision has wrapped it.
    arguments["optimizer"] = old.optimizer
    new.compile(**keras.tree.map_structure(_anew, arguments), auto_scale_loss=False)
    # As Keras does after loading, so that the model can be saved before it is trained.
    if new.optimizer is not None:
        new.optimizer.build(new.trainable_variables)


def _anew(value):
    """The same, without the state: strings, functions and numbers as they are, objects built anew from their configuration."""
    if isinstance(value, (keras.Optimizer, keras.Loss, keras.Metric)):
        return type(value).from_config(value.get_config())
    return value
