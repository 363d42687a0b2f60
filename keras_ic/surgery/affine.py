"""A trainable per-channel affine: what is left of a BatchNormalization at inference where no linear
layer can take it up.
"""

import keras

from keras_ic.surgery.per_channel import PerChannel
from keras_ic.utils.validation import checked_bool


@keras.saving.register_keras_serializable(package="keras_ic")
class Affine(PerChannel):
    """Multiplies every channel by a trainable `scale` and adds a trainable `shift`, in training as
    at inference.

    `keras_ic.rewrite(..., weights="preserve")` puts it where a BatchNormalization stood that no
    linear layer beside it can absorb, and `keras_ic.fold` where an IC layer or a BatchNormalization
    stood that no linear layer can absorb, or of which only the scale can be absorbed.

    Args:
        axis: Integer, the channel axis. Defaults to `-1`.
        use_scale: Boolean, whether there is a scale; without one, only the shift is added. Defaults
            to `True`.
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
    from keras_ic.surgery.affine import Affine

    model = keras.Sequential([keras.Input((3,)), Affine()])
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
        channels = self.channels(input_shape)
        if self.use_scale:
            self.scale = self.add_weight(name="scale", shape=(channels,), initializer="ones")
        self.shift = self.add_weight(name="shift", shape=(channels,), initializer="zeros")

    def call(self, inputs):
        """The inputs, scaled and shifted; see the class."""
        scaled = inputs * self.along_axis(self.scale, inputs) if self.use_scale else inputs
        return scaled + self.along_axis(self.shift, inputs)

    def get_config(self):
        """The arguments of the constructor, as JSON values."""
        return {**super().get_config(), "use_scale": self.use_scale}
