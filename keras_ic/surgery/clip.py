"""ReLU with bounds of each channel's own: what a ReLU becomes when the affine map behind it moves in front of it."""

import keras
from keras import ops

from keras_ic.validation import checked_bool, checked_int


@keras.saving.register_keras_serializable(package="keras_ic")
class Clip(keras.layers.Layer):
    """Bounds every channel from below and, if wanted, from above: `minimum(maximum(x, lower), upper)`.

    For a scale of 0 or more, `scale * relu(x) + shift` is `maximum(scale * x + shift, shift)`, and the scale and shift of `x` go into the weights
    of the layer that computes `x`. So `keras_ic.fold` leaves as many operations as there were without normalization, and zeros that are padded
    behind stay zeros. ReLU6 gets an upper bound too.

    Args:
        axis: Integer, the channel axis. Defaults to `-1`.
        use_upper: Boolean, whether there is an upper bound. Defaults to `False`.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of floats, whose size along `axis` is known.

    Output shape:
        That of `inputs`.

    Raises:
        ValueError: For an axis that the inputs do not have, or whose size is unknown.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ic.surgery.clip import Clip

    model = keras.Sequential([keras.Input((3,)), Clip()])
    model.set_weights([np.array([0.0, 1.0, -1.0])])
    assert model.predict(-np.ones((1, 3)), verbose=0).tolist() == [[0.0, 1.0, -1.0]]
    ```
    """

    def __init__(self, axis=-1, use_upper=False, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.axis = checked_int("axis", axis, "an integer, the channel axis")
        self.use_upper = checked_bool("use_upper", use_upper)

    def build(self, input_shape):
        """Creates the weights for inputs of this shape (a tuple of integers, None where unknown)."""
        rank = len(input_shape)
        channels = input_shape[self.axis] if -rank <= self.axis < rank else None
        if channels is None:
            raise ValueError(
                f"`axis` of {self.name} must be one of the axes of its inputs, of a size that is known. "
                f"Received: axis={self.axis} with input shape {tuple(input_shape)}"
            )
        self.lower = self.add_weight(name="lower", shape=(channels,), initializer="zeros")
        if self.use_upper:
            self.upper = self.add_weight(name="upper", shape=(channels,), initializer="ones")

    def call(self, inputs):
        """The inputs, bounded; see the class."""
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        outputs = ops.maximum(inputs, ops.reshape(self.lower, shape))
        return ops.minimum(outputs, ops.reshape(self.upper, shape)) if self.use_upper else outputs

    def compute_output_shape(self, input_shape):
        """The shape of the inputs."""
        return input_shape

    def get_config(self):
        """The arguments of the constructor, as JSON values."""
        return {**super().get_config(), "axis": self.axis, "use_upper": self.use_upper}
