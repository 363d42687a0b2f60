import random

import keras
import numpy as np
import pytest

import keras_ic
from keras_ic.applications import ORDERS
from keras_ic.training import TrainingConfig, network
from keras_ic.training.networks import MEAN, STD, is_rewritten
from keras_ic.training.rate_schedule import ic_layers

SHAPE = (8, 8, 1)


def small(**values):
    return network(TrainingConfig(data="digits", model="small", **values), SHAPE, 10)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def arrays(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables]


def test_small_in_both_orders():
    assert kinds(small(order="conv-bn-relu")) == [
        "InputLayer",
        *["Conv2D", "BatchNormalization", "ReLU"] * 3,
        "Flatten",
        "Dense",
    ]
    unit = ["Conv2D", "ReLU", "IndependentComponent"]
    # The last IC layer stands before Flatten.
    assert kinds(small()) == ["InputLayer", *unit * 3, "Flatten", "Dense"]
    assert [ic.rate for ic in ic_layers(small(rate=0.1))] == [0.1] * 3


@pytest.mark.parametrize(
    "values",
    [
        {"model": "small"},
        {"model": "resnet8"},
        {"model": "densenet10", "order": "conv-bn-relu", "dropout": 0.2},
    ],
)
def test_the_seed_makes_the_network(values):
    one, two, other = (
        network(TrainingConfig(**{"seed": seed, **values}), (8, 8, 3), 10) for seed in (5, 5, 6)
    )
    for a, b in zip(arrays(one), arrays(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


def test_pythons_random_numbers_and_the_dtype_policy_are_put_back():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    small(dtype="mixed_bfloat16")
    assert random.random() == expected and keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet8", 9),
        ("resnet11", 12),
        ("vgg16", 16),
        ("densenet10", 10),
        ("cnn6", 7),
        ("cnn6-w8", 7),
    ],
)
def test_families(name, layers):
    for order in ORDERS:
        model = network(TrainingConfig(model=name, order=order), (32, 32, 3), 7)
        weight_layers = [
            layer
            for layer in model.layers
            if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
        ]
        assert len(weight_layers) >= layers - 1 and model.output_shape == (None, 7)
        assert bool(ic_layers(model)) == ORDERS[order].has_ic


@pytest.mark.tensorflow_only
def test_keras_applications_with_an_l2_penalty():
    usual, ic = (
        network(
            TrainingConfig(model="MobileNetV2", order=order, rate=0.1, weight_decay=1e-3),
            (32, 32, 3),
            5,
        )
        for order in ("usual", "ic")
    )
    assert usual.output_shape == ic.output_shape == (None, 5)
    assert not any(
        isinstance(layer, keras.layers.BatchNormalization) for layer in ic.layers
    ) and not ic_layers(usual)
    assert {layer.rate for layer in ic_layers(ic)} == {0.1}
    for model in (usual, ic):
        weight_layers = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
        kernels = [layer for layer in model.layers if isinstance(layer, weight_layers)]
        expected = sum(
            1e-3 * np.square(keras.ops.convert_to_numpy(layer.kernel)).sum() for layer in kernels
        )
        assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)
    assert usual.layers[-1].activation is keras.activations.linear


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("name", ["EfficientNetB0", "MobileNetV3Small"])
def test_networks_with_preprocessing_of_their_own_read_standardized_images(name):
    model = network(TrainingConfig(model=name, order="conv-bn-relu"), (32, 32, 3), 5)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    read = (
        keras.Model(model.input, first.input)(images) if first.input is not model.input else images
    )
    middle = keras.ops.convert_to_numpy(read)[:, 1:-1, 1:-1]
    assert abs(middle.std() - 1) < 0.05 and abs(middle.mean()) < 0.05


def test_images_are_resized():
    model = network(TrainingConfig(model="resnet8", image_size=16), (8, 8, 3), 10)
    assert model.input_shape == (None, 8, 8, 3) and model.output_shape == (None, 10)
    assert model.get_layer("resized").output.shape == (None, 16, 16, 3)


def test_mixed_precision_gives_float32_logits():
    model = small(dtype="mixed_bfloat16")
    assert model.output.dtype == "float32" and model.get_layer("conv2").compute_dtype == "bfloat16"
    assert model.get_layer("conv2_ic").compute_dtype == "bfloat16"


def test_dropout_stands_after_the_activations_that_follow_a_batch_normalization():
    unit = ["Conv2D", "BatchNormalization", "ReLU", "Dropout"]
    assert kinds(small(order="conv-bn-relu", dropout=0.3)) == [
        "InputLayer",
        *unit * 3,
        "Flatten",
        "Dense",
    ]
    model = network(
        TrainingConfig(model="resnet8", order="conv-bn-relu", dropout=0.3), (32, 32, 3), 10
    )
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    # None on the sums.
    assert names == [
        "stem_dropout",
        *(f"stage{stage}_block1_conv1_dropout" for stage in (1, 2, 3)),
    ]


def test_batch_normalization_kept_beside_the_ic_layers():
    unit = ["Conv2D", "BatchNormalization", "ReLU", "IndependentComponent"]
    assert kinds(small(order="conv-bn-relu-ic")) == ["InputLayer", *unit * 3, "Flatten", "Dense"]


def test_the_classifier_without_an_ic_layer():
    names = [layer.name for layer in ic_layers(small(classifier_ic=False))]
    assert names == ["conv2_ic", "conv3_ic"]


def test_momentum_and_whole_channels():
    model = small(order="conv-bn-relu-ic", momentum=0.9, per_channel=True)
    normalizations = (keras.layers.BatchNormalization, keras_ic.IC)
    assert {layer.momentum for layer in model.layers if isinstance(layer, normalizations)} == {0.9}
    assert {layer.noise_shape for layer in ic_layers(model)} == {(None, 1, 1, None)}


def test_pixels_are_standardized_in_the_network():
    config = TrainingConfig(model="resnet8", order="conv-bn-relu")
    model = network(config, (32, 32, 3), 10, is_standardized=False)
    assert model.input.dtype == "uint8" and model.output_shape == (None, 10)
    standardized = model.get_layer("standardized")(np.full((1, 1, 1, 3), 120, "uint8"))
    np.testing.assert_allclose(
        np.ravel(keras.ops.convert_to_numpy(standardized)),
        [(120 - mean) / std for mean, std in zip(MEAN, STD, strict=True)],
        rtol=1e-5,
    )


@pytest.mark.tensorflow_only
def test_batch_normalization_kept_in_a_rewritten_network():
    config = TrainingConfig(model="MobileNetV2", order="conv-bn-relu-ic")
    model = network(config, (32, 32, 3), 5)
    assert is_rewritten(config) and not is_rewritten(TrainingConfig(model="resnet8"))
    assert ic_layers(model) and any(
        isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers
    )


@pytest.mark.parametrize("order", ["relu-ic-conv", "ic-conv-relu", "conv-relu-ic"])
@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet29"])
def test_three_parts_are_the_three_stages_of_a_resnet(name, order):
    model = network(
        TrainingConfig(model=name, order=order, rate_depth="stages", rates=(0.1, 0.2, 0.3)),
        (32, 32, 3),
        10,
    )
    stages = {"stem_ic": 0.1, "classifier_ic": 0.3}
    for layer in ic_layers(model):
        stage = layer.name.partition("_")[0]
        assert layer.rate == (
            stages[layer.name]
            if layer.name in stages
            else {"stage1": 0.1, "stage2": 0.2, "stage3": 0.3}[stage]
        ), layer.name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "resnet2O"}, r"did you mean 'resnet20'\? Received: model='resnet2O'"),
        (
            {"model": "transformer-xl"},
            (
                r"`model` must be one of small, cnn6, .* a network of keras.applications\."
                r" Received: model='transformer-xl'"
            ),
        ),
        ({"model": "resnet21"}, r"Received: depth=21"),
        (
            {"model": "MobileNet", "order": "conv-relu-ic"},
            (
                r"A network of keras.applications comes in the orders conv-bn-relu, .* Received:"
                r" order='conv-relu-ic' with model='MobileNet'"
            ),
        ),
    ],
)
def test_bad_input(values, message):
    with pytest.raises(ValueError, match=message):
        network(TrainingConfig(**values), (32, 32, 3), 10)


def test_images_that_are_too_small_are_told_how_to_be_resized():
    message = r"`image_size=32` \(`--image-size 32`\) resizes .* MobileNetV2.* Received: .*8, 8"
    with pytest.raises(ValueError, match=message):
        network(TrainingConfig(model="MobileNetV2"), (8, 8, 1), 10)
