"""ChannelAffine and ChannelClip: what folding and function-preserving rewriting may leave.

Each holds vectors of weights, one value a channel, and keeps the shape of its inputs.
"""

import keras
from keras import ops

from keras_ic.layers.checks import checked_axis
from keras_ic.utils.validation import checked_bool


class _PerChannel(keras.layers.Layer):
    """What both layers have in common."""

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.axis = checked_axis(axis)

    def _channels(self, input_shape):
        """How many channels inputs of this shape (a tuple of integers, None where unknown) have."""
        rank = len(input_shape)
        channels = input_shape[self.axis] if -rank <= self.axis < rank else None
        if channels is None:
            raise ValueError(
                f"`axis` of {self.name} must be one of the axes of its inputs, of a size that is"
                f" known. Received: axis={self.axis} with input shape {tuple(input_shape)}"
            )
        return channels

    def _along_axis(self, vector, inputs):
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


@keras.saving.register_keras_serializable(package="keras_ic")
class ChannelAffine(_PerChannel):
    """Multiplies every channel by a trainable `scale` and adds a trainable `shift`, in training as
    at inference.

    `keras_ic.fold` and `keras_ic.rewrite(..., weights="preserve")` put it where a normalization
    stood that the linear layers beside it cannot take up, or of which they take up the scale alone.

    Args:
        axis: Integer, the channel axis. Defaults to `-1`.
        use_scale: Boolean, whether there is a scale; without one, only the shift is added. Defaults
            to `True`.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        `inputs`: Tensor of floats, whose size along `axis` is known.

    Output shape:
        That of `inputs`.

    Raises:
        ValueError: For an axis that the inputs do not have, or whose size is unknown.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ic.layers import ChannelAffine

    model = keras.Sequential([keras.Input((3,)), ChannelAffine()])
    model.set_weights([np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0])])
    assert model.predict(np.ones((1, 3)), verbose=0).tolist() == [[1.0, 2.0, 4.0]]
    ```

    References:
        - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), section 3.1, batch
          normalization at inference as a scale and a shift
    """

    def __init__(self, axis=-1, use_scale=True, **kwargs):
        super().__init__(axis, **kwargs)
        self.use_scale = checked_bool("use_scale", use_scale)

    def build(self, input_shape):
        """Creates the weights for this input shape (a tuple of integers, None where unknown)."""
        channels = self._channels(input_shape)
        if self.use_scale:
            self.scale = self.add_weight(name="scale", shape=(channels,), initializer="ones")
        self.shift = self.add_weight(name="shift", shape=(channels,), initializer="zeros")

    def call(self, inputs):
        """The inputs, scaled and shifted; see the class."""
        scaled = inputs * self._along_axis(self.scale, inputs) if self.use_scale else inputs
        return scaled + self._along_axis(self.shift, inputs)

    def get_config(self):
        """The arguments of the constructor, as JSON values."""
        return {**super().get_config(), "use_scale": self.use_scale}


@keras.saving.register_keras_serializable(package="keras_ic")
class ChannelClip(_PerChannel):
    """Bounds every channel from below and, if wanted, from above: `minimum(maximum(x, lower),
    upper)`.

    It is a ReLU with bounds of each channel's own. For a scale of 0 or more, `scale * relu(x) +
    shift` is `maximum(scale * x + shift, shift)`, and the scale and shift of `x` go into the
    weights of the layer that computes `x`. So `keras_ic.fold` leaves as many operations as there
    were without normalization, and zeros that are padded after it stay zeros. ReLU6 gets an upper
    bound too.

    Args:
        axis: Integer, the channel axis. Defaults to `-1`.
        use_upper: Boolean, whether there is an upper bound. Defaults to `False`.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        `inputs`: Tensor of floats, whose size along `axis` is known.

    Output shape:
        That of `inputs`.

    Raises:
        ValueError: For an axis that the inputs do not have, or whose size is unknown.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ic.layers import ChannelClip

    model = keras.Sequential([keras.Input((3,)), ChannelClip()])
    model.set_weights([np.array([0.0, 1.0, -1.0])])
    assert model.predict(-np.ones((1, 3)), verbose=0).tolist() == [[0.0, 1.0, -1.0]]
    ```

    References:
        - `docs/deployment.md`, "Where a scale and a shift go"
        - [Jacob et al., 2018](https://arxiv.org/abs/1712.05877), section 3.2, folding of batch
          normalization into the layer before it
    """

    def __init__(self, axis=-1, use_upper=False, **kwargs):
        super().__init__(axis, **kwargs)
        self.use_upper = checked_bool("use_upper", use_upper)

    def build(self, input_shape):
        """Creates the weights for this input shape (a tuple of integers, None where unknown)."""
        channels = self._channels(input_shape)
        self.lower = self.add_weight(name="lower", shape=(channels,), initializer="zeros")
        if self.use_upper:
            self.upper = self.add_weight(name="upper", shape=(channels,), initializer="ones")

    def call(self, inputs):
        """The inputs, bounded; see the class."""
        outputs = ops.maximum(inputs, self._along_axis(self.lower, inputs))
        if self.use_upper:
            outputs = ops.minimum(outputs, self._along_axis(self.upper, inputs))
        return outputs

    def get_config(self):
        """The arguments of the constructor, as JSON values."""
        return {**super().get_config(), "use_upper": self.use_upper}
