"""Plain stacks of convolutions for small images, in every order of layers."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_ic.applications.units import Units, checked_input_shape
from keras_ic.utils.validation import checked_bool, positive_int


def PlainCNN(
    filters: Sequence[int] = (24, 24, 48, 48, 96, 96),
    strides: Sequence[int] | None = None,
    pools: Sequence[int] = (2, 4),
    flatten: bool = False,
    order: str = "ic",
    rate: float = 0.05,
    classes: int = 10,
    input_shape: tuple[int | None, ...] = (32, 32, 3),
    weight_decay: float = 1e-4,
    seed: int | None = None,
    name: str | None = None,
    **options,
) -> keras.Model:
    """3x3 convolutions, one after the other, and a dense classifier, in one of six orders.

    Its orders are those of `keras_ic.applications.ResNet`. With the defaults it has six
    convolutions of 24, 24, 48, 48, 96 and 96 filters, two 2x2 max poolings and global average
    pooling, so that a baseline overfits a few thousand images within minutes on a CPU. Layers are
    named `conv1`, `pool2` (after `conv2`), `classifier`, and `conv1_ic`, `..._bn`, `..._relu` for
    those of the same unit.

    Args:
        filters: Sequence of integers above 0, one for each convolution.
        strides: Sequence of as many integers above 0. Defaults to `None`: 1 for each.
        pools: Sequence of the convolutions, from 1, whose units a pooling follows. Defaults to
            `(2, 4)`.
        flatten: Boolean, whether the classifier reads all values instead of the channels' means.
            Defaults to `False`.
        order: String, as of `ResNet`. Defaults to `"ic"`.
        rate: Float in `[0, 1)`, the probability to drop a value in each IC. Orders without IC do
            not use it. Defaults to `0.05`.
        classes: Integer above 0. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`. Defaults to `(32, 32, 3)`.
        weight_decay: Float, at least 0, of Keras's `L2` on every kernel. Defaults to `1e-4`.
        seed: Integer in `[0, 2**31)` or `None`, as of `ResNet`. Defaults to `None`.
        name: String, the name of the model. Defaults to `None`: `"plain"` and the number of
            convolutions.
        **options: `dropout`, `momentum`, `per_channel` and `classifier_ic`, as of `ResNet`.

    Returns:
        A functional `keras.Model` from float images `(batch, height, width, channels)` to logits
        `(batch, classes)`, not compiled.

    Raises:
        ValueError: For an argument that the above excludes.

    Example:

    ```python
    from keras_ic.applications import PlainCNN

    model = PlainCNN((8, 16), pools=(1,), order="conv-bn-relu-ic", input_shape=(8, 8, 1))
    assert model.get_layer("conv2_ic").output.shape == (None, 4, 4, 8)
    ```
    """
    filters = [positive_int("filters", width) for width in filters]
    strides = [positive_int("strides", stride) for stride in strides or [1] * len(filters)]
    if len(strides) != len(filters):
        raise ValueError(
            f"`strides` must have one entry for each convolution. Received: strides={strides} for"
            f" filters={filters}"
        )
    units = Units(order, rate, weight_decay, seed, **options)
    classes = positive_int("classes", classes)
    images = x = keras.Input(
        checked_input_shape(input_shape, known=checked_bool("flatten", flatten)), name="images"
    )
    for index, (width, stride) in enumerate(zip(filters, strides, strict=True), 1):
        if x is not images:
            x = units.before(x, f"conv{index}")
        x = units.after(units.convolution(f"conv{index}", width, 3, stride)(x), f"conv{index}")
        if index in pools:
            x = layers.MaxPooling2D(2, data_format="channels_last", name=f"pool{index}")(x)
    if flatten:
        x = layers.Flatten(name="flatten")(units.before(x, "classifier"))
        logits = units.logits(x, classes)
    else:
        logits = units.pooled_logits(x, classes)
    return keras.Model(images, logits, name=name or f"plain{len(filters)}")
