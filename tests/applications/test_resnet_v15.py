import keras
import numpy as np
import pytest

from keras_ic.applications import ORDERS, ResNetV15


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
