"""ResNet for images of ImageNet's size, version 1.5, in every order of layers."""

import keras
from keras import layers

from keras_ic.applications.units import Units, checked_input_shape
from keras_ic.utils.validation import positive_int

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class _Units(Units):
    """Units whose kernels begin as those of Goyal et al."""

    last_gamma = "zeros"

    def kernel(self):
        """He's initializer for the fan out, without truncation."""
        initializer = keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal", seed=next(self.kernel_seeds)
        )
        regularizer = keras.regularizers.L2(self.weight_decay) if self.weight_decay else None
        return {"kernel_initializer": initializer, "kernel_regularizer": regularizer}

    def logits(self, x, classes):
        """The classifier begins close to 0."""
        initializer = keras.initializers.RandomNormal(stddev=0.01, seed=next(self.kernel_seeds))
        arguments = {**self.kernel(), "kernel_initializer": initializer}
        return layers.Dense(classes, name="classifier", **arguments)(x)

    def convolved(self, x, name, filters, size, stride):
        """Pads both sides alike whatever the size of the image, as the original."""
        layer = self.convolution(name, filters, size, stride)
        if size > 1 and stride > 1:
            pad = layers.ZeroPadding2D(size // 2, data_format="channels_last", name=f"{name}_pad")
            x, layer.padding = pad(x), "valid"
        return layer(x)


def ResNetV15(
    depth: int = 50,
    order: str = "ic",
    rate: float = 0.05,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    weight_decay: float = 0.0,
    seed: int | None = None,
    name: str | None = None,
    **options,
) -> keras.Model:
    """A bottleneck ResNet in its version 1.5, whose 3x3 convolutions have the strides.
    (`keras.applications` has version 1: those of 1x1.)

    Its orders are those of `keras_ic.applications.ResNet`. Where the last weight layer of a block
    has a BatchNormalization after it, that one begins with gamma 0, so that each block begins as
    the identity (Goyal et al., 2017).

    Args:
        depth: 50 or 101. Defaults to `50`.
        order: String, as of `ResNet`. Defaults to `"ic"`.
        rate: Float in `[0, 1)`, the probability to drop a value in each IC. Orders without IC do
            not use it. Defaults to `0.05`.
        classes: Integer above 0. Defaults to `1000`.
        input_shape: Tuple `(height, width, channels)`. Defaults to `(224, 224, 3)`.
        weight_decay: Float, at least 0, of Keras's `L2` on every kernel. Defaults to `0.0`.
        seed: Integer in `[0, 2**31)` or `None`, as of `ResNet`. Defaults to `None`.
        name: String, the name of the model. Defaults to `None`: `"resnet50_v15"`.
        **options: `dropout`, `momentum`, `per_channel` and `classifier_ic`, as of `ResNet`.

    Returns:
        A Functional `keras.Model` from standardized images to logits, not compiled.

    Raises:
        ValueError: For another depth, or an argument that the above excludes.

    Example:

    ```python
    from keras_ic.applications import ResNetV15

    model = ResNetV15(50, "conv-bn-relu", input_shape=(64, 64, 3))
    assert model.count_params() == 25_610_152
    ```

    References: He et al., 2015 (1512.03385); Goyal et al., 2017 (1706.02677).
    """
    if depth not in BLOCKS:
        raise ValueError(f"`depth` must be 50 or 101. Received: depth={depth!r}")
    units = _Units(order, rate, weight_decay, seed, **options)
    images = keras.Input(checked_input_shape(input_shape), name="images")
    x = units.after(units.convolved(images, "stem", 64, 7, 2), "stem")
    x = layers.MaxPooling2D(3, 2, padding="same", data_format="channels_last", name="stem_pool")(x)
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            filters = 32 * 2**stage
            convolutions = ((filters, 1, 1), (filters, 3, stride), (4 * filters, 1, 1))
            x = units.residual_block(x, f"stage{stage}_block{block}", convolutions)
    logits = units.pooled_logits(x, positive_int("classes", classes))
    return keras.Model(images, logits, name=name or f"resnet{depth}_v15")
