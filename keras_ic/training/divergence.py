"""A training whose loss is no number any more."""

import math
from collections.abc import Callable

import keras
import numpy as np


class DivergedError(ValueError):
    """The loss is no number any more."""


class StopAtDivergence(keras.callbacks.Callback):
    """Raises `DivergedError` at the first step whose loss is not finite.

    `keras.callbacks.TerminateOnNaN` would have the epoch come to its end: with a validation, a line
    in the record and a checkpoint of weights that are lost.

    Args:
        offset: Function without arguments, the steps of this epoch that were done before `fit`.
    """

    def __init__(self, offset: Callable[[], int]):
        super().__init__()
        self.offset = offset

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss, which several steps have in common."""
        if not math.isfinite(float(logs["loss"])):
            self._stop(f"at step {self.offset() + batch + 1}")

    def on_test_begin(self, logs=None):
        """Looks at the weights: the last step of an epoch loses them without a sign."""
        for variable in self.model.trainable_variables:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                self._stop("after the last step")

    def _stop(self, where):
        raise DivergedError(f"The loss is not finite any more {where} of epoch {self.epoch + 1}")
