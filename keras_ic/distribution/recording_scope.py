"""Which variables a forward pass writes."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_ic.utils.lazy_imports import tensorflow as tf


class RecordingScope(keras.StatelessScope):
    """A scope in which no variable changes, and which tells what would have been written.

    A trainable variable that is written, as SpectralNormalization writes its kernel, is a constant
    from there on: its gradient is taken at the value that was written, and does not go through the
    computation of it, as with real variables.

    Args:
        values: Pairs of a variable and the tensor to read in its place.
    """

    def __init__(self, values: list[tuple[keras.Variable, Any]]):
        super().__init__(values, collect_losses=True)
        self.written: dict[int, keras.Variable] = {}
        self.tape: Any = None
        self._trainable = {id(variable): variable for variable, _ in values if variable.trainable}
        self._read: dict[int, list[Any]] = {}

    def record(self, tape: Any) -> None:
        """Has a `tf.GradientTape`, which must be recording, watch what is read in place of
        trainable variables.
        """
        self.tape = tape
        for variable in self._trainable.values():
            self._watch(variable, self.get_current_value(variable))

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        """Notes the variable and the value. Keras calls it where a variable is assigned to."""
        variable, value = update
        if variable.trainable:
            value = tf.stop_gradient(value)
            self._watch(variable, value)
        self.written[id(variable)] = variable
        super().add_update((variable, value))

    def gradients(self, loss: Any, variables: list[keras.Variable]) -> list[Any]:
        """The gradient of a loss by each variable, None where there is none."""
        sources = [[variable.value, *self._read.get(id(variable), ())] for variable in variables]
        return [add(found) for found in self.tape.gradient(loss, sources)]

    def _watch(self, variable, value):
        self.tape.watch(value)
        self._read.setdefault(id(variable), []).append(value)


def add(gradients: Iterable[Any]) -> Any:
    """The sum of gradients, some of which may be None; None if all are."""
    # What an embedding gives is no tensor, and cannot be added to another.
    found = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
    return tf.add_n(found) if found else None
