"""ResNet for ImageNet, version 1.5, in its usual order."""

from typing import Any

import keras
from keras import layers

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def resnet(depth: int, input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """A bottleneck ResNet in its version 1.5, whose 3x3 convolutions have the strides.
    (`keras.applications` has version 1: those of 1x1.)

    The last BatchNormalization of every block begins with gamma 0, so that each block begins as the
    identity (Goyal et al., 2017).

    Args:
        depth: 50 or 101.
        input_shape: Tuple `(height, width, channels)`.
        classes: Integer above 0.

    Returns:
        A Functional `keras.Model` from standardized images to logits, not compiled.

    Raises:
        ValueError: For another depth.

    Example:

    ```python
    from keras_ic.imagenet.resnet import resnet

    assert resnet(50, (64, 64, 3), 1000).count_params() == 25_610_152
    ```

    References: He et al., 2015 (1512.03385); Goyal et al., 2017 (1706.02677).
    """
    if depth not in BLOCKS:
        raise ValueError(f"`depth` must be 50 or 101. Received: depth={depth!r}")
    inputs = keras.Input(input_shape, name="images")
    x = _activated(_convolution(inputs, 64, 7, 2, "stem"), "stem")
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        for block in range(1, blocks + 1):
            x = _block(
                x,
                32 * 2**stage,
                2 if stage > 1 and block == 1 else 1,
                block == 1,
                f"stage{stage}_block{block}",
            )
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(
        inputs,
        layers.Dense(
            classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="classifier",
        )(x),
        name=f"resnet{depth}",
    )


def _block(x: Any, filters: int, strides: int, projected: bool, name: str) -> Any:
    shortcut = x
    if projected:
        shortcut = layers.BatchNormalization(name=f"{name}_shortcut_bn")(
            _convolution(x, 4 * filters, 1, strides, f"{name}_shortcut")
        )
    x = _activated(_convolution(x, filters, 1, 1, f"{name}_conv1"), f"{name}_conv1")
    x = _activated(_convolution(x, filters, 3, strides, f"{name}_conv2"), f"{name}_conv2")
    x = layers.BatchNormalization(gamma_initializer="zeros", name=f"{name}_conv3_bn")(
        _convolution(x, 4 * filters, 1, 1, f"{name}_conv3")
    )
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, x]))


def _activated(x, name):
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))


def _convolution(x, filters, size, strides, name):
    if size > 1 and strides > 1:
        # As the original, which pads both sides alike whatever the size of the image.
        x, padding = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x), "valid"
    else:
        padding = "same"
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
    )(x)
