"""What every one of the networks does, whatever its shape."""

import keras
import numpy as np
import pytest

from keras_ic import IndependentComponent, applications
from keras_ic.applications import VGG16, DenseNet, PlainCNN, ResNet
from tests.applications.graphs import weight_layers


def resnet(*arguments, **settings):
    return ResNet(8, *arguments, **{"input_shape": (8, 8, 3), **settings})


def densenet(*arguments, **settings):
    return DenseNet(7, 4, *arguments, **{"input_shape": (8, 8, 3), **settings})


def densenet_bc(*arguments, **settings):
    return DenseNet(10, 4, *arguments, **{"input_shape": (8, 8, 3), "bottleneck": True, **settings})


def plain(*arguments, **settings):
    return PlainCNN((4, 8), None, (1,), False, *arguments, **{"input_shape": (8, 8, 3), **settings})


NETWORKS = {
    "plain": plain,
    "resnet": resnet,
    "vgg": VGG16,
    "densenet": densenet,
    "densenet_bc": densenet_bc,
}
ORDERS = list(applications.ORDERS)


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def images(model, count=4):
    return np.random.RandomState(0).rand(count, *model.input_shape[1:]).astype("float32")


def of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize("order", ORDERS)
def test_which_normalizations_an_order_has(network, order):
    model = network(order)
    assert (
        bool(of(model, keras.layers.BatchNormalization))
        == applications.ORDERS[order].has_batch_norm
    )
    assert bool(of(model, IndependentComponent)) == applications.ORDERS[order].has_ic
    assert not of(model, keras.layers.Dropout)


@pytest.mark.parametrize("order", ORDERS)
def test_a_training_step_moves_every_kernel_and_leaves_all_finite(network, order):
    model = network(order, seed=0)
    before = [keras.ops.convert_to_numpy(layer.kernel) for layer in weight_layers(model)]
    model.compile(
        keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    assert np.isfinite(model.train_on_batch(images(model), np.arange(4)))
    for weight in model.weights:
        assert np.all(np.isfinite(keras.ops.convert_to_numpy(weight))), weight.path
    for layer, old in zip(weight_layers(model), before, strict=True):
        assert np.any(keras.ops.convert_to_numpy(layer.kernel) != old), layer.name


def test_weight_decay_is_of_kernels_alone(network):
    model = network("ic", weight_decay=2e-3, seed=0)
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in weight_layers(model)]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(sum(model.losses)),
        2e-3 * sum(np.sum(kernel.astype("float64") ** 2) for kernel in kernels),
        rtol=1e-4,
    )
    assert not network("ic", weight_decay=0).losses


def test_the_same_seed_gives_the_same_network_and_masks(network):
    first, again, other = (network("ic", rate=0.3, seed=seed) for seed in (5, 5, 6))
    for one, two in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(two)
        )
    one, two, three = (
        keras.ops.convert_to_numpy(model(images(first), training=True))
        for model in (first, again, other)
    )
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - three).max() > 0.01


def test_seeds_do_not_meet(network):
    def seeds(seed):
        model = network("ic", seed=seed)
        return [layer.kernel_initializer.seed for layer in weight_layers(model)] + [
            layer.seed for layer in of(model, IndependentComponent)
        ]

    first, second, last = seeds(0), seeds(1), seeds(2**31 - 1)
    assert len(set(first)) == len(first)
    assert len(set(last)) == len(last)
    assert not set(first) & set(second)


def test_without_a_seed_networks_differ(network):
    first, second = (
        keras.ops.convert_to_numpy(weight_layers(network("ic"))[0].kernel) for _ in range(2)
    )
    assert not np.array_equal(first, second)


def test_saved_and_loaded(network, tmp_path):
    model = network("ic")
    x = images(model)
    model(x, training=True)  # moves the statistics, which a fresh network would have too
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(each(x)) for each in (model, loaded))
    )


def test_pixels_come_first_whatever_the_setting_of_keras(network):
    expected = [layer.output.shape for layer in network("ic").layers]
    setting = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        assert [layer.output.shape for layer in network("ic").layers] == expected
    finally:
        keras.config.set_image_data_format(setting)


def test_layer_names_are_the_same_each_time(network):
    first, second = ([layer.name for layer in network("conv-bn-relu").layers] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"order": "IC"},
            r"`order` must be one of 'conv-bn-relu', .*'usual', 'ic'[.;].* Received: order='IC'$",
        ),
        ({"order": ["ic"]}, r"`order` must be one of .* Received: order=\['ic'\]$"),
        (
            {"classes": 0},
            r"`classes` must be an integer above 0\. Received: classes=0 \(of type int\)$",
        ),
        (
            {"rate": 1.0},
            r"`rate` must be a number in \[0, 1\), .* Received: rate=1.0 \(of type float\)$",
        ),
        (
            {"rate": -0.1, "order": "conv-bn-relu"},
            r"`rate` must be .* Received: rate=-0.1 \(of type float\)$",
        ),
        (
            {"weight_decay": -1},
            r"`weight_decay` must be .* Received: weight_decay=-1 \(of type int\)$",
        ),
        ({"seed": 2**31}, r"`seed` must be .* Received: seed=2147483648 \(of type int\)$"),
        ({"input_shape": 32}, r"`input_shape` must be .* Received: input_shape=32$"),
        ({"input_shape": (32, 32)}, r"`input_shape` must be .* Received: input_shape=\(32, 32\)$"),
        (
            {"input_shape": (32, 32, None)},
            r"`input_shape` must be .* Received: input_shape=\(32, 32, None\)$",
        ),
        (
            {"input_shape": (32, 32, 0)},
            r"`input_shape` must be .* Received: input_shape=0 \(of type int\)$",
        ),
        (
            {"input_shape": (32.0, 32, 3)},
            r"`input_shape` must be .* Received: input_shape=32.0 \(of type float\)$",
        ),
    ],
)
def test_bad_arguments(network, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        network(**arguments)
    assert "\n" not in str(error.value)
