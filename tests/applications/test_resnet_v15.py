import pytest

from keras_ic.applications import ORDERS, ResNetV15
from keras_ic.training.networks import count_parameters


def test_it_has_torchvisions_number_of_parameters():
    assert count_parameters(ResNetV15(50, "usual", input_shape=(64, 64, 3))) == 25_557_032


@pytest.mark.slow
def test_the_deeper_one():
    assert count_parameters(ResNetV15(101, "usual", input_shape=(64, 64, 3))) == 44_549_160


def test_the_convolutions_of_3x3_have_the_strides():
    model = ResNetV15(50, "usual", input_shape=(64, 64, 3))
    assert model.get_layer("stage2_block1_conv1").strides == (1, 1)
    assert model.get_layer("stage2_block1_conv2").strides == (2, 2)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_has_the_same_kernels(order):
    def kernels(model):
        return [layer.kernel.shape for layer in model.layers if hasattr(layer, "kernel")]

    made = ResNetV15(50, order, input_shape=(32, 32, 3), classes=5)
    assert kernels(made) == kernels(ResNetV15(50, "usual", input_shape=(32, 32, 3), classes=5))


def test_another_depth():
    with pytest.raises(ValueError, match="Received: depth=18"):
        ResNetV15(18)
