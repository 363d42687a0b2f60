import keras
import numpy as np
import pytest

from keras_ic.applications import ORDERS, ResNetV15
from keras_ic.training.networks import count_parameters


def test_it_has_torchvisions_number_of_parameters():
    assert count_parameters(ResNetV15(50, "usual", input_shape=(64, 64, 3))) == 25_557_032


@pytest.mark.slow(reason="the depth of 50 is built in the same way")
def test_the_deeper_one():
    assert count_parameters(ResNetV15(101, "usual", input_shape=(64, 64, 3))) == 44_549_160


def test_the_convolutions_of_3x3_have_the_strides():
    model = ResNetV15(50, "usual", input_shape=(64, 64, 3))
    assert model.get_layer("stage2_block1_conv1").strides == (1, 1)
    assert model.get_layer("stage2_block1_conv2").strides == (2, 2)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_has_the_same_weight_layers_and_head(order):
    model = ResNetV15(50, order, classes=10, input_shape=(32, 32, 3))
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert len(kernels) == 54 and [layer.name for layer in model.layers[-1:]] == ["classifier"]
    assert model.get_layer("pool").output.shape == (None, 2048)


def test_each_block_of_the_baseline_begins_as_the_identity():
    model = ResNetV15(50, "conv-bn-relu", classes=10, input_shape=(32, 32, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            expected = 0 if layer.name.endswith("conv3_bn") else 1
            assert np.all(keras.ops.convert_to_numpy(layer.gamma) == expected), layer.name


def test_bad_depth():
    with pytest.raises(ValueError, match="Received: depth=18"):
        ResNetV15(18)
