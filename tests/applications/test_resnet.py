import keras
import numpy as np
import pytest

from keras_ic import IndependentComponent
from keras_ic.applications import ResNet
from tests.applications.graphs import WEIGHT_LAYERS, path_into, producers, trainable

IC_ORDERS = ["relu-ic-conv", "ic-conv-relu", "conv-relu-ic"]


# Parameters in millions: He et al. 2015, table 6; He et al. 2016, appendix. They have no
# projections, ours are up to one percent larger.
@pytest.mark.parametrize(
    ("depth", "millions", "convolutions"),
    [(20, 0.27, 2), (32, 0.46, 2), (44, 0.66, 2), (56, 0.85, 2), (110, 1.7, 2), (164, 1.7, 3)],
)
def test_sizes_and_blocks_are_those_of_the_papers(depth, millions, convolutions):
    model = ResNet(depth, "conv-bn-relu")
    assert (
        len(
            [
                layer
                for layer in model.layers
                if layer.name.startswith("stage3_block2_conv")
                and isinstance(layer, keras.layers.Conv2D)
            ]
        )
        == convolutions
    )
    assert abs(trainable(model) / 1e6 - millions) < 0.02 * millions
    assert (
        len(
            [
                layer
                for layer in model.layers
                if isinstance(layer, WEIGHT_LAYERS) and "shortcut" not in layer.name
            ]
        )
        == depth
    )


@pytest.mark.parametrize("order", IC_ORDERS)
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (29, 0.31)])
def test_the_orders_have_about_the_same_size(depth, millions, order):
    assert abs(trainable(ResNet(depth, order)) / 1e6 - millions) < 0.02 * millions


def test_exact_size_of_resnet20():
    convolutions = 3 * 3 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    shortcuts = 16 * 32 + 32 * 64
    channels = 7 * 16 + 7 * 32 + 7 * 64  # of the convolutions, shortcuts included
    classifier = 64 * 10 + 10
    assert (
        trainable(ResNet(20, "conv-bn-relu"))
        == convolutions + shortcuts + 2 * channels + classifier
    )
    # Before all convolutions but the first, each by the channels that it reads, and the classifier.
    channels_of_ics = 7 * 16 + 6 * 32 + 5 * 64 + 64
    assert (
        trainable(ResNet(20, "ic"))
        == convolutions + shortcuts + channels + 2 * channels_of_ics + classifier
    )


@pytest.mark.parametrize(
    ("depth", "block", "kind", "blocks"),
    [
        (20, "auto", "basic", 3),
        (29, "auto", "bottleneck", 3),
        (38, "auto", "basic", 6),
        (128, "auto", "bottleneck", 14),
        (38, "bottleneck", "bottleneck", 4),
    ],
)
def test_which_block(depth, block, kind, blocks):
    names = {layer.name for layer in ResNet(depth, "conv-bn-relu", block=block).layers}
    assert ("stage1_block1_conv3" in names) == (kind == "bottleneck")
    assert f"stage3_block{blocks}_conv2" in names
    assert f"stage3_block{blocks + 1}_conv1" not in names


def test_the_baseline():
    model = ResNet(20, "conv-bn-relu")
    assert path_into(model, "stage1_block1_conv1") == ["Conv2D", "BatchNormalization", "ReLU"]
    assert path_into(model, "stage2_block2_conv2") == ["Conv2D", "BatchNormalization", "ReLU"]
    assert path_into(model, "stage2_block2_conv1") == ["Add", "ReLU"]
    assert path_into(model, "classifier") == ["Add", "ReLU", "GlobalAveragePooling2D"]
    reads = producers(model)
    assert [layer.name for layer in reads["stage2_block1_add"]] == [
        "stage2_block1_shortcut_bn",
        "stage2_block1_conv2_bn",
    ]
    assert [layer.name for layer in reads["stage2_block2_add"]] == [
        "stage2_block1_relu",
        "stage2_block2_conv2_bn",
    ]
    assert not any(
        layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
    )
    assert not any(isinstance(layer, IndependentComponent) for layer in model.layers)


@pytest.mark.parametrize(
    ("order", "first", "second", "classifier", "ends"),
    [
        (
            "relu-ic-conv",
            ["Add", "ReLU", "IC"],
            ["Conv2D", "ReLU", "IC"],
            ["Add", "ReLU", "GlobalAveragePooling2D", "IC"],
            "conv2",
        ),
        (
            "ic-conv-relu",
            ["Add", "IC"],
            ["Conv2D", "ReLU", "IC"],
            ["Add", "GlobalAveragePooling2D", "IC"],
            "conv2_relu",
        ),
        (
            "conv-relu-ic",
            ["Add"],
            ["Conv2D", "ReLU", "IC"],
            ["Add", "GlobalAveragePooling2D", "IC"],
            "conv2_ic",
        ),
    ],
)
def test_ic_orders(order, first, second, classifier, ends):
    model = ResNet(20, order)
    for stage in (1, 2, 3):
        assert path_into(model, f"stage{stage}_block2_conv1") == first
        assert path_into(model, f"stage{stage}_block2_conv2") == second
        if stage > 1:
            assert path_into(model, f"stage{stage}_block1_shortcut") == first
    assert path_into(model, "classifier") == classifier
    reads = producers(model)
    assert [layer.name for layer in reads["stem"]] == ["images"]
    # The sum is carried on as it is, and added to what ends the block.
    assert [layer.name for layer in reads["stage2_block2_add"]] == [
        "stage2_block1_add",
        f"stage2_block2_{ends}",
    ]
    assert [layer.name for layer in reads["stage2_block1_add"]] == [
        "stage2_block1_shortcut",
        f"stage2_block1_{ends}",
    ]
    assert reads["stage2_block1_shortcut"] == reads["stage2_block1_conv1"]
    assert all(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


@pytest.mark.parametrize("depth", [20, 29])
@pytest.mark.parametrize("order", ["ic", "ic-conv-relu"])
def test_every_weight_layer_but_the_first_reads_an_ic(depth, order):
    model = ResNet(depth, order)
    reads = producers(model)
    weight_layers = [layer for layer in model.layers if isinstance(layer, WEIGHT_LAYERS)]
    assert weight_layers[0].name == "stem"
    for layer in weight_layers[1:]:
        assert [type(before) for before in reads[layer.name]] == [IndependentComponent], layer.name


@pytest.mark.parametrize("depth", [20, 29])
def test_every_weight_layer_of_conv_relu_ic_reads_ics_or_sums_of_them(depth):
    model = ResNet(depth, "conv-relu-ic")
    reads = producers(model)

    def is_of_ics(layer):
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            return False
        if isinstance(layer, keras.layers.Add):
            return all(
                is_of_ics(before) or "shortcut" in before.name for before in reads[layer.name]
            )
        return isinstance(layer, IndependentComponent)

    for layer in model.layers:
        if isinstance(layer, WEIGHT_LAYERS) and layer.name != "stem":
            assert is_of_ics(reads[layer.name][0]), layer.name


@pytest.mark.parametrize("order", ["conv-bn-relu", "conv-relu-ic"])
def test_shapes_and_logits(order):
    model = ResNet(20, order, classes=7, input_shape=(16, 20, 1), name="small")
    assert model.name == "small"
    assert model.output_shape == (None, 7)
    assert model.get_layer("stage3_block3_add").output.shape == (None, 4, 5, 64)
    assert model.get_layer("classifier").activation is keras.activations.linear
    assert ResNet(20, input_shape=(None, None, 3)).output_shape == (None, 10)


def test_bottleneck_widens_four_times():
    model = ResNet(29, "ic")
    assert model.get_layer("stage1_block1_shortcut").strides == (1, 1)
    assert [model.get_layer(f"stage2_block1_conv{i}").kernel.shape for i in (1, 2, 3)] == [
        (1, 1, 64, 32),
        (3, 3, 32, 32),
        (1, 1, 32, 128),
    ]


def test_defaults():
    model = ResNet(20)
    assert model.name == "resnet20"
    assert [layer.name for layer in model.layers] == [
        layer.name for layer in ResNet(20, "relu-ic-conv").layers
    ]
    assert {layer.rate for layer in model.layers if isinstance(layer, IndependentComponent)} == {
        0.05
    }
    for layer in model.layers:
        if isinstance(layer, WEIGHT_LAYERS):
            assert layer.kernel_regularizer.l2 == np.float32(1e-4)
            assert layer.bias_regularizer is None
    assert not ResNet(20, weight_decay=0).losses


def test_the_same_seed_gives_the_same_network_and_masks():
    images = np.random.RandomState(0).rand(4, 8, 8, 3).astype("float32")
    first, again, other = (
        ResNet(20, rate=0.3, input_shape=(8, 8, 3), seed=seed) for seed in (5, 5, 6)
    )
    for one, two in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(two)
        )
    one, two, three = (
        keras.ops.convert_to_numpy(model(images, training=True)) for model in (first, again, other)
    )
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - three).max() > 0.01


def test_seeds_do_not_meet():
    def seeds(seed):
        model = ResNet(47, seed=seed, input_shape=(8, 8, 3))
        kernels = [
            layer.kernel_initializer.seed
            for layer in model.layers
            if isinstance(layer, WEIGHT_LAYERS)
        ]
        return kernels + [
            layer.seed for layer in model.layers if isinstance(layer, IndependentComponent)
        ]

    first, second, last = seeds(0), seeds(1), seeds(2**31 - 1)
    assert len(set(first)) == len(first)
    assert len(set(last)) == len(last)
    assert not set(first) & set(second)


def test_without_a_seed_networks_differ():
    first, second = ResNet(20, input_shape=(8, 8, 3)), ResNet(20, input_shape=(8, 8, 3))
    assert not np.array_equal(
        *(keras.ops.convert_to_numpy(model.get_layer("stem").kernel) for model in (first, second))
    )


def test_saved_and_loaded(tmp_path):
    images = np.random.RandomState(0).rand(2, 8, 8, 3).astype("float32")
    model = ResNet(29, input_shape=(8, 8, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(each(images)) for each in (model, loaded))
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"depth": 21},
            (
                r"`depth` must be an integer from 8 to 2000 of the form 6n\+2 .* Received: depth=21"
                r" \(of type int\)$"
            ),
        ),
        ({"depth": 20.0}, r"`depth` must be .* Received: depth=20.0 \(of type float\)$"),
        ({"depth": 2}, r"`depth` must be .* Received: depth=2 \(of type int\)$"),
        (
            {"depth": 29, "block": "basic"},
            r"With basic blocks, .* 6n\+2, .* Received: depth=29 with block='basic'$",
        ),
        (
            {"depth": 32, "block": "bottleneck"},
            r"With bottleneck blocks, .* 9n\+2, .* Received: depth=32 with block='bottleneck'$",
        ),
        (
            {"block": "big"},
            r"`block` must be one of 'auto', 'basic', 'bottleneck'\. Received: block='big'$",
        ),
        (
            {"order": "IC"},
            r"`order` must be one of 'conv-bn-relu', .*'usual', 'ic'[.;].* Received: order='IC'$",
        ),
        ({"order": None}, r"`order` must be one of .* Received: order=None$"),
        (
            {"classes": 0},
            r"`classes` must be an integer above 0\. Received: classes=0 \(of type int\)$",
        ),
        (
            {"rate": 1.0},
            r"`rate` must be a number in \[0, 1\), .* Received: rate=1.0 \(of type float\)$",
        ),
        (
            {"rate": 1.0, "order": "conv-bn-relu"},
            r"`rate` must be .* Received: rate=1.0 \(of type float\)$",
        ),
        (
            {"weight_decay": -1},
            r"`weight_decay` must be .* Received: weight_decay=-1 \(of type int\)$",
        ),
        ({"seed": -1}, r"`seed` must be .* Received: seed=-1 \(of type int\)$"),
        ({"input_shape": (32, 32)}, r"`input_shape` must be .* Received: input_shape=\(32, 32\)$"),
        (
            {"input_shape": (32, 32, None)},
            r"`input_shape` must be .* Received: input_shape=\(32, 32, None\)$",
        ),
        (
            {"input_shape": (32, 0, 3)},
            r"`input_shape` must be .* Received: input_shape=0 \(of type int\)$",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        ResNet(**{"depth": 20, **arguments})
    assert "\n" not in str(error.value)
