"""The CIFAR DenseNets and DenseNet-BCs, in every order of layers."""

import keras
from keras import layers

from keras_ic.applications.units import (
    DEEPEST,
    Units,
    checked_input_shape,
)
from keras_ic.utils.validation import checked_bool, checked_int, positive_int

BLOCKS = 3
FILTERS = 16  # of the first convolution; DenseNet-BC has twice its growth rate
EXPANSION = 4  # of a bottleneck's middle over the growth rate
SMALLEST = 2 ** (BLOCKS - 1)  # each transition halves the height and the width


def DenseNet(
    depth: int = 40,
    growth_rate: int = 12,
    order: str = "ic",
    rate: float = 0.05,
    classes: int = 10,
    input_shape: tuple[int | None, ...] = (32, 32, 3),
    weight_decay: float = 1e-4,
    seed: int | None = None,
    name: str | None = None,
    bottleneck: bool = False,
    **options,
) -> keras.Model:
    """A CIFAR DenseNet, or DenseNet-BC, whose units are built in one of six orders.

    A 3x3 convolution of 16 filters, three dense blocks of `n` layers each, global average pooling,
    and a dense classifier. A layer is a 3x3 convolution of `growth_rate` filters, which reads the
    concatenation of the block's input and of what all layers before it in the block gave. Between
    two blocks stands a transition: a 1x1 convolution that keeps the number of channels, and a 2x2
    average pooling. That makes a depth of `3n+4`. With `bottleneck`, the network is a DenseNet-BC:
    a 1x1 convolution of `4 * growth_rate` filters stands before each 3x3 one, a transition halves
    the number of channels (rounded down), and the first convolution has `2 * growth_rate` filters;
    the depth is `6n+4`.

    The orders, each with the same head:

    - `"conv-bn-relu"`: Conv-BatchNorm-ReLU, the baseline; `"usual"` is another name of it.
    - `"bn-relu-conv"`: BatchNorm-ReLU-Conv, pre-activation (He et al., 2016).
    - `"relu-ic-conv"`: ReLU-IC-Conv, which Chen et al. found best in ResNets; `"ic"` is another
      name of it.
    - `"ic-conv-relu"`: IC-Conv-ReLU.
    - `"conv-relu-ic"`: Conv-ReLU-IC.
    - `"conv-bn-relu-ic"`: Conv-BatchNorm-ReLU with an IC before the next weight layer, as
      `keras_ic.rewrite(normalization="keep")` makes it.

    The images enter the first convolution without an IC; the classifier has one after the pooling.
    A concatenation joins what whole units gave, and the pooling of a transition stands after its
    whole unit.

    In `"relu-ic-conv"` and `"ic-conv-relu"` every other weight layer reads an IC of its own, over
    all channels that it reads, as in `"bn-relu-conv"` it has a BatchNorm of its own. The two
    compute the same but for the transitions, where the average is of what is before the ReLU in the
    one and of what is after it in the other. In `"conv-relu-ic"` each channel passes one IC, right
    after its convolution, and all that read it later read the same values, the same dropped ones
    included; only the averages of a transition are no longer an IC's output. It has the fewest
    parameters of the three, and the least to compute. Convolutions have no bias in the orders with
    BatchNorm, which shifts, and one in the others.

    Layers are named after their place: `stem`, `block2_layer3_conv1` (and `..._conv2` in a
    DenseNet-BC), `block2_layer3_concat`, `transition1_conv`, `transition1_pool`, `pool`,
    `classifier`, and `block2_layer3_conv1_ic`, `..._bn`, `..._relu` for those of the same unit.

    Args:
        depth: Integer up to 2000, the number of weight layers: `3n+4` (40, 100), with `bottleneck`
            `6n+4` (100, 190, 250). Defaults to `40`.
        growth_rate: Integer, the number of filters of each layer of a block, `k` in the paper.
            Defaults to `12`.
        order: A name above. Defaults to `"ic"`.
        rate: Float in `[0, 1)`, the probability to drop a value in each IC. Orders without IC do
            not use it. Defaults to `0.05`.
        classes: Integer, the number of classes. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`, pixels first; height and width at least 4 or
            None. Defaults to `(32, 32, 3)`.
        weight_decay: Float, at least 0, of Keras's `L2` on every kernel: `weight_decay *
            sum(kernel**2)` is added to the loss. Defaults to `1e-4`.
        seed: Integer in `[0, 2**31)`, from which every kernel's initializer and every IC get a seed
            of their own, so that the same seed gives the same network and the same masks. Seeds
            below `2**19` share nothing with each other. Defaults to `None`: a new network each
            time.
        name: String, the name of the model. Defaults to `None`: `"densenet"`, or `"densenet_bc"`
            with `bottleneck`, and the depth.
        bottleneck: Boolean, whether to make a DenseNet-BC. Defaults to `False`.
        **options: `dropout`, the rate of a Dropout after each ReLU that follows a BatchNorm, in the
            orders without IC (default `0.0`); `momentum` of the moving statistics (`0.99`);
            `per_channel`, whether whole channels are dropped (`False`); `classifier_ic`, whether
            an IC stands before the classifier (`True`).

    Returns:
        A functional `keras.Model` from float images `(batch, height, width, channels)` to logits
        `(batch, classes)`, with no softmax, not compiled.

    Raises:
        ValueError: For an argument that the above excludes, naming the choices and what was
            received.

    Example:

    ```python
    import keras
    from keras_ic.applications import DenseNet

    model = DenseNet(13, growth_rate=4, order="ic", seed=0)
    assert model(keras.ops.zeros((2, 32, 32, 3))).shape == (2, 10)
    assert model.get_layer("block1_layer3_conv1_ic").output.shape == (None, 32, 32, 16 + 2 * 4)
    ```

    References:
        - [Huang et al., 2016](https://arxiv.org/abs/1608.06993), densely connected convolutional
          networks; section 3 has the CIFAR networks
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), the IC layer and its unit orders
    """
    bottleneck = checked_bool("bottleneck", bottleneck)
    block_layers = _checked_depth(depth, bottleneck)
    growth_rate = positive_int("growth_rate", growth_rate)
    units = Units(order, rate, weight_decay, seed, **options)
    classes = positive_int("classes", classes)

    images = keras.Input(checked_input_shape(input_shape, SMALLEST), name="images")
    x = units.after(
        units.convolution("stem", 2 * growth_rate if bottleneck else FILTERS, 3)(images), "stem"
    )
    for block in range(1, BLOCKS + 1):
        for index in range(1, block_layers + 1):
            x = _layer(units, x, f"block{block}_layer{index}", growth_rate, bottleneck)
        if block < BLOCKS:
            x = units.convolution_unit(
                x, f"transition{block}_conv", x.shape[-1] // 2 if bottleneck else x.shape[-1], 1
            )
            x = layers.AveragePooling2D(
                2, data_format="channels_last", name=f"transition{block}_pool"
            )(x)
    return keras.Model(
        images,
        units.pooled_logits(x, classes),
        name=name or f"densenet{'_bc' if bottleneck else ''}{int(depth)}",
    )


def _layer(units, x, name, growth_rate, bottleneck):
    """One or two units, and their input beside what they give."""
    convolutions = (
        [(EXPANSION * growth_rate, 1), (growth_rate, 3)] if bottleneck else [(growth_rate, 3)]
    )
    new = x
    for index, (filters, size) in enumerate(convolutions, 1):
        new = units.convolution_unit(new, f"{name}_conv{index}", filters, size)
    return layers.Concatenate(name=f"{name}_concat")([x, new])


def _checked_depth(depth, bottleneck):
    """How many layers a block has."""
    step, form = (
        (6, "6n+4 (100, 190, 250), as of a DenseNet-BC") if bottleneck else (3, "3n+4 (40, 100)")
    )
    wanted = f"an integer from {step + 4} to {DEEPEST} of the form {form}"
    return (
        checked_int(
            "depth",
            depth,
            wanted,
            lambda value: step + 4 <= value <= DEEPEST and (value - 4) % step == 0,
        )
        - 4
    ) // step
