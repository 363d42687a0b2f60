import keras
import numpy as np
import pytest

from keras_ic import IndependentComponent
from keras_ic.applications import DenseNet
from tests.applications.graphs import path_into, producers, trainable, weight_layers

IC_ORDERS = ["relu-ic-conv", "ic-conv-relu", "conv-relu-ic"]


def size_by_formula(depth, growth, bottleneck, order, classes=10):
    """The parameters, counted convolution by convolution: (size, inputs, outputs)."""
    layers = (depth - 4) // (6 if bottleneck else 3)
    channels = 2 * growth if bottleneck else 16
    convolutions = [(3, 3, channels)]
    for block in (1, 2, 3):
        for _ in range(layers):
            convolutions += (
                [(1, channels, 4 * growth), (3, 4 * growth, growth)]
                if bottleneck
                else [(3, channels, growth)]
            )
            channels += growth
        if block < 3:
            outputs = channels // 2 if bottleneck else channels
            convolutions.append((1, channels, outputs))
            channels = outputs
    assert len(convolutions) == depth - 1
    kernels = sum(size * size * inputs * outputs for size, inputs, outputs in convolutions)
    biases = 0 if order == "bn-relu-conv" else sum(outputs for _, _, outputs in convolutions)
    # The classifier reads a normalization in every order; all other weight layers but the first in
    # every order but conv-relu-ic.
    if order == "conv-relu-ic":
        normalized = sum(outputs for _, _, outputs in convolutions) + channels
    else:
        normalized = sum(inputs for _, inputs, _ in convolutions[1:]) + channels
    return kernels + biases + 2 * normalized + channels * classes + classes


# Huang et al. 2016, table 2; those of DenseNet-BC with a depth of 40 from the page of the authors'
# code.
@pytest.mark.parametrize(
    ("depth", "growth", "bottleneck", "millions"),
    [
        (40, 12, False, 1.0),
        (100, 12, False, 7.0),
        (100, 24, False, 27.2),
        (100, 12, True, 0.8),
        (250, 24, True, 15.3),
        (190, 40, True, 25.6),
        (40, 36, True, 1.5),
        (40, 48, True, 2.7),
        (40, 60, True, 4.3),
    ],
)
def test_the_formula_gives_the_sizes_of_the_paper(depth, growth, bottleneck, millions):
    assert round(size_by_formula(depth, growth, bottleneck, "bn-relu-conv") / 1e6, 1) == millions


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("order", ["bn-relu-conv", *IC_ORDERS])
@pytest.mark.parametrize(
    ("depth", "growth", "bottleneck"),
    [(40, 12, False), (40, 12, True), (7, 3, False), (10, 5, True)],
)
def test_exact_size(depth, growth, bottleneck, order):
    model = DenseNet(depth, growth, order, bottleneck=bottleneck)
    assert trainable(model) == size_by_formula(depth, growth, bottleneck, order)
    assert len(weight_layers(model)) == depth


# Path into: the layer of a block that reads a concatenation, the second convolution of a
# bottleneck, the layer after a transition.
BETWEEN = {
    "bn-relu-conv": (
        ["BatchNormalization", "ReLU"],
        ["BatchNormalization", "ReLU"],
        ["AveragePooling2D", "BatchNormalization", "ReLU"],
    ),
    "relu-ic-conv": (["ReLU", "IC"], ["ReLU", "IC"], ["AveragePooling2D", "ReLU", "IC"]),
    "ic-conv-relu": (["IC"], ["ReLU", "IC"], ["ReLU", "AveragePooling2D", "IC"]),
    "conv-relu-ic": ([], ["ReLU", "IC"], ["ReLU", "IC", "AveragePooling2D"]),
}
STEM = {
    "bn-relu-conv": ["BatchNormalization", "ReLU"],
    "relu-ic-conv": ["ReLU", "IC"],
    "ic-conv-relu": ["ReLU", "IC"],
    "conv-relu-ic": ["ReLU", "IC"],
}
CLASSIFIER = {
    "bn-relu-conv": ["BatchNormalization", "ReLU", "GlobalAveragePooling2D"],
    "relu-ic-conv": ["ReLU", "GlobalAveragePooling2D", "IC"],
    "ic-conv-relu": ["GlobalAveragePooling2D", "IC"],
    "conv-relu-ic": ["GlobalAveragePooling2D", "IC"],
}


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("order", BETWEEN)
def test_orders(order, bottleneck):
    model = DenseNet(16, 4, order, bottleneck=bottleneck)
    last = 2 if bottleneck else 4
    concatenated, inside, behind_transition = BETWEEN[order]
    assert path_into(model, "block1_layer1_conv1") == ["Conv2D", *STEM[order]]
    for block in (1, 2, 3):
        for index in range(1, last + 1):
            name = f"block{block}_layer{index}_conv"
            if index > 1:
                assert path_into(model, f"{name}1") == ["Concatenate", *concatenated]
            elif block > 1:
                assert path_into(model, f"{name}1") == ["Conv2D", *behind_transition]
            if bottleneck:
                assert path_into(model, f"{name}2") == ["Conv2D", *inside]
    for transition in (1, 2):
        assert path_into(model, f"transition{transition}_conv") == ["Concatenate", *concatenated]
    assert path_into(model, "classifier") == ["Concatenate", *CLASSIFIER[order]]
    assert [layer.name for layer in producers(model)["stem"]] == ["images"]
    assert all(
        layer.use_bias == (order != "bn-relu-conv" or layer.name == "classifier")
        for layer in weight_layers(model)
    )


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize(
    ("order", "first", "new"),
    [
        ("bn-relu-conv", "stem", "conv1"),
        ("relu-ic-conv", "stem", "conv1"),
        ("ic-conv-relu", "stem_relu", "conv1_relu"),
        ("conv-relu-ic", "stem_ic", "conv1_ic"),
    ],
)
def test_a_concatenation_joins_what_whole_units_gave(order, first, new):
    reads = producers(DenseNet(13, 4, order))
    assert [layer.name for layer in reads["block1_layer1_concat"]] == [
        first,
        f"block1_layer1_{new}",
    ]
    assert [layer.name for layer in reads["block2_layer1_concat"]] == [
        "transition1_pool",
        f"block2_layer1_{new}",
    ]
    assert [layer.name for layer in reads["block2_layer3_concat"]] == [
        "block2_layer2_concat",
        f"block2_layer3_{new}",
    ]


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("order", ["ic", "ic-conv-relu"])
def test_every_weight_layer_but_the_first_reads_an_ic_of_its_own(order, bottleneck):
    model = DenseNet(16, 4, order, bottleneck=bottleneck)
    reads = producers(model)
    assert weight_layers(model)[0].name == "stem"
    for layer in weight_layers(model)[1:]:
        (before,) = reads[layer.name]
        assert isinstance(before, IndependentComponent), layer.name
        assert before.name == f"{layer.name}_ic"


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("bottleneck", [False, True])
def test_every_weight_layer_of_conv_relu_ic_reads_ics_side_by_side(bottleneck):
    model = DenseNet(16, 4, "conv-relu-ic", bottleneck=bottleneck)
    reads = producers(model)

    def is_of_ics(layer):
        if isinstance(layer, (keras.layers.Concatenate, keras.layers.AveragePooling2D)):
            return all(is_of_ics(before) for before in reads[layer.name])
        return isinstance(layer, IndependentComponent)

    for layer in weight_layers(model)[1:]:
        assert is_of_ics(reads[layer.name][0]), layer.name


def test_relu_ic_conv_and_ic_conv_relu_part_at_the_transition():
    images = np.random.RandomState(0).rand(4, 8, 8, 3).astype("float32")

    def values(order, name):
        model = DenseNet(7, 4, order, rate=0.2, input_shape=(8, 8, 3), seed=3)
        return keras.ops.convert_to_numpy(
            keras.Model(model.input, model.get_layer(name).output)(images, training=True)
        )

    first, second = (
        values(order, "transition1_conv_ic") for order in ("relu-ic-conv", "ic-conv-relu")
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)
    first, second = (
        values(order, "block2_layer1_conv1_ic") for order in ("relu-ic-conv", "ic-conv-relu")
    )
    assert np.abs(first - second).max() > 0.01


@pytest.mark.usefixtures("plain_kernels")
def test_bottlenecks_and_compression():
    model = DenseNet(16, 5, bottleneck=True)
    assert model.get_layer("stem").filters == 10
    assert [model.get_layer(f"block1_layer2_conv{i}").kernel.shape for i in (1, 2)] == [
        (1, 1, 15, 20),
        (3, 3, 20, 5),
    ]
    assert model.get_layer("transition1_conv").kernel.shape == (1, 1, 20, 10)
    assert model.get_layer("transition2_conv").kernel.shape == (1, 1, 20, 10)
    # Half of 15, rounded down.
    assert DenseNet(10, 5, bottleneck=True).get_layer("transition1_conv").filters == 7


@pytest.mark.usefixtures("plain_kernels")
def test_shapes_and_logits():
    model = DenseNet(7, 4, classes=7, input_shape=(17, 20, 1), name="small")
    assert model.name == "small"
    assert model.output_shape == (None, 7)
    assert model.get_layer("block3_layer1_concat").output.shape == (None, 4, 5, 16 + 3 * 4)
    assert model.get_layer("classifier").activation is keras.activations.linear
    assert DenseNet(7, input_shape=(None, None, 3)).output_shape == (None, 10)


@pytest.mark.usefixtures("plain_kernels")
def test_defaults():
    model = DenseNet()
    assert model.name == "densenet40"
    assert DenseNet(16, bottleneck=True).name == "densenet_bc16"
    assert [layer.name for layer in model.layers] == [
        layer.name for layer in DenseNet(40, 12, "relu-ic-conv", bottleneck=False).layers
    ]
    assert model.get_layer("block1_layer1_conv1").filters == 12
    assert {layer.rate for layer in model.layers if isinstance(layer, IndependentComponent)} == {
        0.05
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"depth": 41},
            (
                r"`depth` must be an integer from 7 to 2000 of the form 3n\+4 .* Received: depth=41"
                r" \(of type int\)$"
            ),
        ),
        ({"depth": 40.0}, r"`depth` must be .* Received: depth=40.0 \(of type float\)$"),
        ({"depth": 4}, r"`depth` must be .* Received: depth=4 \(of type int\)$"),
        ({"depth": 2002}, r"`depth` must be .* Received: depth=2002 \(of type int\)$"),
        (
            {"depth": 13, "bottleneck": True},
            (
                r"`depth` must be an integer from 10 to 2000 of the form 6n\+4 .* Received:"
                r" depth=13 \(of type int\)$"
            ),
        ),
        (
            {"depth": 7, "bottleneck": True},
            r"`depth` must be .* 6n\+4 .* Received: depth=7 \(of type int\)$",
        ),
        (
            {"growth_rate": 0},
            (
                r"`growth_rate` must be an integer above 0. Received: growth_rate=0 \(of type"
                r" int\)$"
            ),
        ),
        (
            {"growth_rate": 1.5},
            r"`growth_rate` must be .* Received: growth_rate=1.5 \(of type float\)$",
        ),
        (
            {"bottleneck": 1},
            r"`bottleneck` must be True or False\. Received: bottleneck=1 \(of type int\)$",
        ),
        (
            {"input_shape": (3, 32, 3)},
            (
                r"`input_shape` must be .* height and width at least 4 or None, .* Received:"
                r" input_shape=3 \(of type int\)$"
            ),
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        DenseNet(**{"depth": 7, **arguments})
    assert "\n" not in str(error.value)
