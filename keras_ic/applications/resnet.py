"""The CIFAR ResNets of depth 6n+2 and 9n+2, in every order of layers."""

import keras

from keras_ic.applications.units import DEEPEST, Units, checked_input_shape
from keras_ic.utils.validation import checked_choice, checked_int, positive_int

FILTERS = (16, 32, 64)
EXPANSION = 4  # of a bottleneck's output over its middle


def ResNet(
    depth: int,
    order: str = "ic",
    rate: float = 0.05,
    classes: int = 10,
    input_shape: tuple[int | None, ...] = (32, 32, 3),
    weight_decay: float = 1e-4,
    seed: int | None = None,
    name: str | None = None,
    block: str = "auto",
    **options,
) -> keras.Model:
    """A CIFAR ResNet whose residual units are built in one of six orders.

    A 3x3 convolution of 16 filters, three stages of `n` blocks with 16, 32 and 64 filters (a
    bottleneck's output has four times as many), the second and the third stage starting with stride
    2, global average pooling, and a dense classifier. A block of two 3x3 convolutions ("basic")
    makes a depth of `6n+2`, one of 1x1, 3x3 and 1x1 ("bottleneck") of `9n+2`.

    The orders, each with the same head:

    - `"conv-bn-relu"`: Conv-BatchNorm-ReLU, the baseline; `"usual"` is another name of it.
    - `"bn-relu-conv"`: BatchNorm-ReLU-Conv, pre-activation (He et al., 2016).
    - `"relu-ic-conv"`: ReLU-IC-Conv, which Chen et al. found best in ResNets; `"ic"` is another
      name of it.
    - `"ic-conv-relu"`: IC-Conv-ReLU.
    - `"conv-relu-ic"`: Conv-ReLU-IC.
    - `"conv-bn-relu-ic"`: Conv-BatchNorm-ReLU with an IC before the next weight layer, as
      `keras_ic.rewrite(normalization="keep")` makes it.

    In the orders without a BatchNorm after the convolution, what a block adds to its input is the
    last layer of its last unit, and the sum goes on as it is. The images enter the first
    convolution without an IC; the classifier, a weight layer too, has one after the pooling. In
    `"relu-ic-conv"` and `"ic-conv-relu"` every other convolution reads an IC, too; in
    `"conv-relu-ic"` the first of a block reads the sum of what ICs before it gave. Where a block
    changes the shape, a 1x1 convolution stands on the shortcut; it reads what the block's first
    convolution reads, so that the two share one IC. Convolutions with a BatchNorm after them have
    no bias, the others do.

    Layers are named after their place: `stem`, `stage2_block1_conv2`, `stage2_block1_shortcut`,
    `classifier`, and `stage2_block1_conv2_ic`, `..._bn`, `..._relu` for those of the same unit.

    Args:
        depth: Integer up to 2000, the number of weight layers without those on shortcuts: `6n+2`
            (20, 32, 44, 56, 110) or `9n+2` (29, 47, 164).
        order: A name above. Defaults to `"ic"`.
        rate: Float in `[0, 1)`, the probability to drop a value in each IC. Orders without IC do
            not use it. Defaults to `0.05`.
        classes: Integer, the number of classes. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`, pixels first; height and width may be None.
            Defaults to `(32, 32, 3)`.
        weight_decay: Float, at least 0, of Keras's `L2` on every kernel: `weight_decay *
            sum(kernel**2)` is added to the loss. Defaults to `1e-4`.
        seed: Integer in `[0, 2**31)`, from which every kernel's initializer and every IC get a seed
            of their own, so that the same seed gives the same network and the same masks. Seeds
            below `2**19` share nothing with each other. Defaults to `None`: a new network each
            time.
        name: String, the name of the model. Defaults to `None`: `"resnet"` and the depth.
        block: `"basic"`, `"bottleneck"` or `"auto"`. `"auto"` takes the one that makes the depth;
            where both do (20, 38, 56, ...), basic blocks up to 110, as in He et al. 2015, and
            bottlenecks above, as in the ResNet-164 of He et al. 2016. Defaults to `"auto"`.
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
    from keras_ic.applications import ResNet

    model = ResNet(20, order="ic", seed=0)
    assert model(keras.ops.zeros((2, 32, 32, 3))).shape == (2, 10)
    assert model.get_layer("stage2_block1_conv2_ic").rate == 0.05
    ```

    References:
        - [He et al., 2015](https://arxiv.org/abs/1512.03385), deep residual learning; section 4.2
          has the CIFAR networks
        - [He et al., 2016](https://arxiv.org/abs/1603.05027), identity mappings; ResNet-164
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), the IC layer and its unit orders
    """
    block, blocks = _checked_depth(depth, block)
    units = Units(order, rate, weight_decay, seed, **options)
    classes = positive_int("classes", classes)

    images = keras.Input(checked_input_shape(input_shape), name="images")
    x = units.after(units.convolution("stem", FILTERS[0], 3)(images), "stem")
    for stage, filters in enumerate(FILTERS, 1):
        for index in range(1, blocks + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            convolutions = {
                "basic": [(filters, 3, stride), (filters, 3, 1)],
                "bottleneck": [
                    (filters, 1, stride),
                    (filters, 3, 1),
                    (EXPANSION * filters, 1, 1),
                ],
            }[block]
            x = units.residual_block(x, f"stage{stage}_block{index}", convolutions)
    return keras.Model(images, units.pooled_logits(x, classes), name=name or f"resnet{int(depth)}")


def _checked_depth(depth, block):
    """The kind of block, and how many of it a stage has."""
    block = checked_choice("block", block, ("auto", "basic", "bottleneck"))
    wanted = (
        f"an integer from 8 to {DEEPEST} of the form 6n+2 (20, 32, 44, 56, 110: basic blocks) or"
        " 9n+2 (29, 47, 164: bottlenecks)"
    )
    depth = checked_int(
        "depth",
        depth,
        wanted,
        lambda value: 8 <= value <= DEEPEST and ((value - 2) % 6 == 0 or (value - 2) % 9 == 0),
    )
    fits = {"basic": (depth - 2) % 6 == 0, "bottleneck": (depth - 2) % 9 == 0}
    if block == "auto":
        block = (
            "basic" if fits["basic"] and (depth <= 110 or not fits["bottleneck"]) else "bottleneck"
        )
    if not fits[block]:
        form = {"basic": "6n+2, as 20, 32 or 56", "bottleneck": "9n+2, as 29, 47 or 164"}[block]
        raise ValueError(
            f"With {block} blocks, `depth` must be of the form {form}. Received: depth={depth} with"
            f" block={block!r}"
        )
    return block, (depth - 2) // {"basic": 6, "bottleneck": 9}[block]
