"""VGG-16 in its form for CIFAR, in every order of layers."""

import keras
from keras import layers

from keras_ic.applications.units import Units, checked_input_shape
from keras_ic.utils.validation import positive_int

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # filters and convolutions of each
WIDTH = 512  # of the two hidden dense layers
SMALLEST = 2 ** len(BLOCKS)  # each block halves the height and the width


def VGG16(
    order: str = "ic",
    rate: float = 0.05,
    classes: int = 10,
    input_shape: tuple[int | None, ...] = (32, 32, 3),
    weight_decay: float = 1e-4,
    seed: int | None = None,
    name: str | None = None,
    **options,
) -> keras.Model:
    """The VGG-16 for CIFAR, built of units in one of six orders.

    Thirteen 3x3 convolutions in five blocks of 64, 128, 256, 512 and 512 filters, a 2x2 max pooling
    after each block, then two dense layers of 512 and a dense classifier: 16 weight layers, as in
    configuration D of Simonyan and Zisserman. Their dense layers of 4096 are made for images of
    224x224; of an image of 32x32 the last pooling leaves 512 values, and 512 is the width that is
    common on CIFAR. Liu and Deng fitted a modified VGG-16 to CIFAR-10 with BatchNorm and stronger
    regularization; this network need not agree with theirs layer by layer.

    The orders, each with the same head:

    - `"conv-bn-relu"`: Conv-BatchNorm-ReLU, the baseline; `"usual"` is another name of it.
    - `"bn-relu-conv"`: BatchNorm-ReLU-Conv, pre-activation (He et al., 2016).
    - `"relu-ic-conv"`: ReLU-IC-Conv, which Chen et al. found best in ResNets; `"ic"` is another
      name of it.
    - `"ic-conv-relu"`: IC-Conv-ReLU.
    - `"conv-relu-ic"`: Conv-ReLU-IC.
    - `"conv-bn-relu-ic"`: Conv-BatchNorm-ReLU with an IC before the next weight layer, as
      `keras_ic.rewrite(normalization="keep")` makes it.

    The dense layers are units of the same order. The images enter the first convolution without an
    IC, and nothing stands after the classifier. Weight layers with a BatchNorm after them have no
    bias, the others do.

    A pooling stands between two units, after all of the one and before all of the other. In
    `"relu-ic-conv"` and `"ic-conv-relu"` the IC so comes after the pooling, and every weight layer
    but the first reads an IC. In `"conv-relu-ic"` it comes before, and the weight layer after a
    pooling reads the largest of four values that an IC gave, of which it may have dropped some. An
    IC stands before the Flatten, so that it has one mean and one variance a channel.

    In a plain chain as this is, the three IC orders nearly coincide, for between two convolutions
    all of them put ReLU, then IC. As the maximum and ReLU commute, `"relu-ic-conv"` and
    `"ic-conv-relu"` compute the same function; the former applies ReLU to a quarter of the values
    where there is a pooling. `"conv-relu-ic"` differs from them at the five poolings alone.

    Layers are named after their place: `block3_conv2`, `block3_pool`, `flatten`, `dense1`,
    `dense2`, `classifier`, and `block3_conv2_ic`, `..._bn`, `..._relu` for those of the same unit.

    Args:
        order: A name above. Defaults to `"ic"`.
        rate: Float in `[0, 1)`, the probability to drop a value in each IC. Orders without IC do
            not use it. Defaults to `0.05`.
        classes: Integer, the number of classes. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`, pixels first; height and width at least 32.
            Defaults to `(32, 32, 3)`.
        weight_decay: Float, at least 0, of Keras's `L2` on every kernel: `weight_decay *
            sum(kernel**2)` is added to the loss. Defaults to `1e-4`.
        seed: Integer in `[0, 2**31)`, from which every kernel's initializer and every IC get a seed
            of their own, so that the same seed gives the same network and the same masks. Seeds
            below `2**19` share nothing with each other. Defaults to `None`: a new network each
            time.
        name: String, the name of the model. Defaults to `None`: `"vgg16"`.
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
    from keras_ic.applications import VGG16

    model = VGG16(order="ic", seed=0)
    assert model(keras.ops.zeros((2, 32, 32, 3))).shape == (2, 10)
    assert model.get_layer("block2_conv1_ic").input is model.get_layer("block2_conv1_relu").output
    ```

    References:
        - [Simonyan and Zisserman, 2014](https://arxiv.org/abs/1409.1556), VGG; table 1 has
          configuration D
        - [Liu and Deng, 2015](https://doi.org/10.1109/ACPR.2015.7486599), very deep convolutional
          neural network based image classification using small training sample size; a modified
          VGG-16 with BatchNorm on CIFAR-10
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), the IC layer and its unit orders
    """
    units = Units(order, rate, weight_decay, seed, **options)
    classes = positive_int("classes", classes)

    images = x = keras.Input(checked_input_shape(input_shape, SMALLEST, known=True), name="images")
    for block, (filters, convolutions) in enumerate(BLOCKS, 1):
        for index in range(1, convolutions + 1):
            conv = f"block{block}_conv{index}"
            if x is not images:
                x = units.before(x, conv)
            x = units.after(units.convolution(conv, filters, 3)(x), conv)
        x = layers.MaxPooling2D(2, data_format="channels_last", name=f"block{block}_pool")(x)
    for dense in ("dense1", "dense2"):
        x = units.before(x, dense)
        if dense == "dense1":
            x = layers.Flatten(data_format="channels_last", name="flatten")(x)
        x = units.after(units.dense(dense, WIDTH)(x), dense)
    return keras.Model(
        images, units.logits(units.before(x, "classifier"), classes), name=name or "vgg16"
    )
