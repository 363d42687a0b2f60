"""Networks for pixels, and those of keras.applications."""

import keras
import numpy as np
import pytest

from keras_ic.training import network, preset
from keras_ic.training.networks import MEAN, STD, is_rewritten
from keras_ic.training.rate_schedule import ic_layers

SHAPE = (32, 32, 3)


def tiny_network(**changes):
    config = preset("small", **{"model": "Tiny", "image_size": 32, **changes})
    return network(config, SHAPE, 4, is_standardized=False)


def test_the_network_standardizes_pixels(tiny):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("uint8")
    standardized = tiny_network().get_layer("standardized")(pixels)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(standardized),
        (pixels - np.array(MEAN)) / np.array(STD),
        rtol=1e-4,
        atol=1e-5,
    )


def test_kernels_alone_are_penalized(tiny):
    """By Keras's L2: the decay times the sum of the squares."""
    model = tiny_network(weight_decay=2.0)
    squares = sum(
        np.square(keras.ops.convert_to_numpy(weight)).sum()
        for weight in model.weights
        if weight.name == "kernel"
    )
    penalty = float(keras.ops.convert_to_numpy(sum(model.losses)))
    assert penalty == pytest.approx(2 * squares, rel=1e-5)


def test_the_seed_gives_the_weights(tiny):
    one, two, other = (tiny_network(seed=seed).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("order", "normalizations", "is_made"),
    [("usual", 3, False), ("ic", 0, True), ("conv-bn-relu-ic", 3, True)],
)
def test_the_orders_of_a_stock_network(tiny, order, normalizations, is_made):
    model = tiny_network(order=order)
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(found) == normalizations
    names = ["conv1_ic", "conv2_ic", "classifier_ic"] if is_made else []
    assert [layer.name for layer in ic_layers(model)] == names
    assert is_rewritten(preset("small", model="Tiny", order=order)) == is_made


def test_what_a_stock_network_does_not_come_in(tiny):
    for changes in ({"order": "bn-relu-conv"}, {"per_channel": True}, {"classifier_ic": False}):
        with pytest.raises(ValueError, match=r"alone, with an IC layer before .* model='Tiny'"):
            tiny_network(**changes)


def test_unknown_networks():
    with pytest.raises(ValueError, match=r"did you mean 'resnet50-v1\.5'\? Received: model="):
        tiny_network(model="resnet50-v1_5")


def test_bfloat16(tiny):
    model = tiny_network(order="usual", dtype="mixed_bfloat16")
    assert model.output.dtype == "float32"
    assert model.get_layer("tiny").get_layer("conv1").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.tensorflow_only
def test_synchronized(tiny):
    assert tiny_network(synchronized=True).get_layer("tiny").get_layer("conv1_ic").synchronized
