"""Where a training that diverged went wrong first."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_ic.utils.layer_hooks import replaced_calls


class DivergedError(ValueError):
    """The loss is no number any more."""


class StopAtDivergence(keras.callbacks.Callback):
    """Stops at the first step whose loss is not finite, and notes it as `(epoch, step)`, both from
    0.

    A step loses the weights without a sign if it is the last of its epoch; the loss on the
    validation data is then nan.
    """

    def __init__(self):
        super().__init__()
        self.at = None

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        """Stops if the validation has shown that the weights are lost."""
        if math.isnan(logs["val_loss"]):
            self.at = (epoch, self.step + 1)
            raise DivergedError

    def on_train_batch_end(self, batch, logs=None):
        """Stops if the loss is not finite."""
        self.step = batch
        if not math.isfinite(logs["loss"]):
            self.at = (self.epoch, batch)
            # `stop_training` alone would have the epoch run to its end.
            raise DivergedError


def explain(
    at: tuple[int, int],
    model: keras.Model,
    batches: Iterable[Any],
    rewind: Callable[[keras.Model], None],
) -> str:
    """One line that says at which step and in which layer values first were not finite.

    The diverged weights do not tell, since they are all lost in one step. The epoch is therefore
    run once more up to that step.

    Args:
        at: The epoch and the step, from 0.
        model: The model that was trained, compiled.
        batches: The batches of the epoch, from its first.
        rewind: Function of the model that gives it back the state before the epoch.
    """
    epoch, step = at
    rewind(model)
    when = f"after the last step of epoch {epoch + 1}"
    for index, (x, y) in enumerate(batches):
        if index == step:
            when = f"at step {step + 1} of epoch {epoch + 1}"
            break
        model.train_on_batch(x, y)
    x = keras.ops.convert_to_tensor(x)
    broken: list[str] = []

    def looked_at(layer, call):
        def watched(*args, **kwargs):
            if not all(map(_is_finite, layer.weights)):
                broken.append(f"the weights of {layer.name}")
            outputs = call(*args, **kwargs)
            if not all(map(_is_finite, keras.tree.flatten(outputs))):
                broken.append(f"the outputs of {layer.name}")
            return outputs

        return watched

    layers = [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    with replaced_calls({layer: looked_at(layer, layer.call) for layer in layers}):
        model(x, training=True)
    where = broken[0] if broken else "the loss itself, while all layers' outputs are finite"
    return f"The loss is not finite any more {when}; what went first are {where}"


def _is_finite(value: Any) -> bool:
    return bool(
        np.isfinite(
            keras.ops.convert_to_numpy(keras.ops.stop_gradient(keras.ops.cast(value, "float32")))
        ).all()
    )
