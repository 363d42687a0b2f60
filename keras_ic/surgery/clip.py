"""ReLU with bounds of each channel's own: what a ReLU becomes when the affine map behind it moves
in front of it.
"""

import keras
from keras import ops

from keras_ic.surgery.per_channel import PerChannel
from keras_ic.utils.validation import checked_bool


@keras.saving.register_keras_serializable(package="keras_ic")
class Clip(PerChannel):
    """Bounds every channel from below and, if wanted, from above: `minimum(maximum(x, lower),
    upper)`.

    For a scale of 0 or more, `scale * relu(x) + shift` is `maximum(scale * x + shift, shift)`, and
    the scale and shift of `x` go into the weights of the layer that computes `x`. So
    `keras_ic.fold` leaves as many operations as there were without normalization, and zeros that
    are padded behind stay zeros. ReLU6 gets an upper bound too.

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
        channels = self.channels(input_shape)
        self.lower = self.add_weight(name="lower", shape=(channels,), initializer="zeros")
        if self.use_upper:
            self.upper = self.add_weight(name="upper", shape=(channels,), initializer="ones")

    def call(self, inputs):
        """The inputs, bounded; see the class."""
        outputs = ops.maximum(inputs, self.along_axis(self.lower, inputs))
        return (
            ops.minimum(outputs, self.along_axis(self.upper, inputs)) if self.use_upper else outputs
        )

    def get_config(self):
        """The arguments of the constructor, as JSON values."""
        return {**super().get_config(), "use_upper": self.use_upper}
