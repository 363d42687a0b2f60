import itertools

import keras
import numpy as np
import pytest

from keras_ic import IndependentComponent
from keras_ic.applications import VGG16
from tests.applications.graphs import path_into, producers, trainable, weight_layers

CHANNELS = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
KERNELS = (
    sum(3 * 3 * a * b for a, b in itertools.pairwise(CHANNELS)) + 512 * 512 + 512 * 512 + 512 * 10
)
OUTPUTS = sum(CHANNELS[1:]) + 512 + 512  # of all weight layers but the classifier

# What stands between two weight layers, without and with a pooling.
BETWEEN = {
    "conv-bn-relu": (
        ["BatchNormalization", "ReLU"],
        ["BatchNormalization", "ReLU", "MaxPooling2D"],
    ),
    "relu-ic-conv": (["ReLU", "IC"], ["MaxPooling2D", "ReLU", "IC"]),
    "ic-conv-relu": (["ReLU", "IC"], ["ReLU", "MaxPooling2D", "IC"]),
    "conv-relu-ic": (["ReLU", "IC"], ["ReLU", "IC", "MaxPooling2D"]),
}


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize(
    ("order", "biases"),
    [
        ("conv-bn-relu", 0),
        ("relu-ic-conv", OUTPUTS),
        ("ic-conv-relu", OUTPUTS),
        ("conv-relu-ic", OUTPUTS),
    ],
)
def test_exact_size(order, biases):
    model = VGG16(order)
    # Each output of a hidden weight layer passes one normalization with a gamma and a beta; the
    # classifier has 10 biases.
    assert trainable(model) == KERNELS + biases + 2 * OUTPUTS + 10
    assert len(weight_layers(model)) == 16


def test_the_convolutions_are_those_of_configuration_d():
    """Keras's own VGG16 names them as we do."""
    model, known = (
        VGG16("ic"),
        keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3)),
    )
    convolutions = [layer for layer in known.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 13
    for layer in convolutions:
        ours = model.get_layer(layer.name)
        assert (ours.kernel.shape, ours.output.shape) == (layer.kernel.shape, layer.output.shape)


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("order", BETWEEN)
def test_orders(order):
    model = VGG16(order)
    plain, pooled = BETWEEN[order]
    for layer in weight_layers(model)[1:]:
        name = layer.name
        if name == "dense1":
            assert path_into(model, name) == ["Conv2D", *pooled, "Flatten"]
        elif name.startswith("block") and name.endswith("conv1"):
            assert path_into(model, name) == ["Conv2D", *pooled], name
        else:
            assert path_into(model, name)[1:] == plain, name
    assert [layer.name for layer in producers(model)["block1_conv1"]] == ["images"]
    assert model.output is model.get_layer("classifier").output
    assert all(
        layer.use_bias == (order != "conv-bn-relu" or layer.name == "classifier")
        for layer in weight_layers(model)
    )


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("order", ["ic", "ic-conv-relu"])
def test_every_weight_layer_but_the_first_reads_an_ic(order):
    model = VGG16(order)
    reads = producers(model)
    for layer in weight_layers(model)[1:]:
        (before,) = reads["flatten" if layer.name == "dense1" else layer.name]
        assert isinstance(before, IndependentComponent), layer.name
        # The classifier's is named after it as all others are.
        assert before.name == f"{layer.name}_ic"


@pytest.mark.usefixtures("plain_kernels")
def test_the_ic_above_flatten_has_one_mean_a_channel():
    model = VGG16("ic", input_shape=(64, 64, 3))
    assert model.get_layer("dense1_ic").moving_mean.shape == (512,)
    assert model.get_layer("dense1").kernel.shape == (2 * 2 * 512, 512)


def test_relu_before_or_behind_the_pooling_is_the_same_function():
    images = np.random.RandomState(0).rand(4, 32, 32, 3).astype("float32")
    first, second, third = (
        keras.ops.convert_to_numpy(VGG16(order, rate=0.2, seed=3)(images, training=True))
        for order in ("relu-ic-conv", "ic-conv-relu", "conv-relu-ic")
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)
    assert np.abs(first - third).max() > 0.01


@pytest.mark.usefixtures("plain_kernels")
def test_shapes_and_logits():
    model = VGG16("conv-bn-relu", classes=7, input_shape=(40, 33, 1), name="small")
    assert model.name == "small"
    assert model.output_shape == (None, 7)
    assert model.get_layer("block4_pool").output.shape == (None, 2, 2, 512)
    assert model.get_layer("classifier").activation is keras.activations.linear


@pytest.mark.usefixtures("plain_kernels")
def test_defaults():
    model = VGG16()
    assert model.name == "vgg16"
    assert [layer.name for layer in model.layers] == [
        layer.name for layer in VGG16("relu-ic-conv").layers
    ]
    assert {layer.rate for layer in model.layers if isinstance(layer, IndependentComponent)} == {
        0.05
    }


@pytest.mark.parametrize(
    ("shape", "received"),
    [
        ((31, 32, 3), r"31 \(of type int\)"),
        ((32, 16, 3), r"16 \(of type int\)"),
        ((None, 32, 3), r"\(None, 32, 3\)"),
        ((32, None, 3), r"\(32, None, 3\)"),
    ],
)
def test_images_that_no_pooling_can_leave_something_of(shape, received):
    with pytest.raises(
        ValueError,
        match=(
            r"^`input_shape` must be .* height and width at least 32, .* Received:"
            rf" input_shape={received}$"
        ),
    ):
        VGG16(input_shape=shape)
