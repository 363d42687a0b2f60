"""What the layers have in common that hold one vector a channel."""

import keras
from keras import ops

from keras_ic.utils.validation import checked_int


class PerChannel(keras.layers.Layer):
    """A layer that does to each channel what vectors of weights say, and keeps the shape."""

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.axis = checked_int("axis", axis, "an integer, the channel axis")

    def channels(self, input_shape):
        """How many channels inputs of this shape (a tuple of integers, None where unknown) have."""
        rank = len(input_shape)
        channels = input_shape[self.axis] if -rank <= self.axis < rank else None
        if channels is None:
            raise ValueError(
                f"`axis` of {self.name} must be one of the axes of its inputs, of a size that is"
                f" known. Received: axis={self.axis} with input shape {tuple(input_shape)}"
            )
        return channels

    def along_axis(self, vector, inputs):
        """The vector in a shape that is broadcast over all other axes of the inputs."""
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        return ops.reshape(vector, shape)

    def compute_output_shape(self, input_shape):
        """The shape of the inputs."""
        return input_shape

    def get_config(self):
        """The arguments of the constructor, as JSON values."""
        return {**super().get_config(), "axis": self.axis}
