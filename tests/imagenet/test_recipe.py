import keras
import numpy as np
import pytest

import keras_ic
from keras_ic import imagenet
from keras_ic.imagenet.building import MEAN, STD, compile_for
from keras_ic.imagenet.resnet import resnet


def test_names_and_changes():
    standard = imagenet.named("standard")
    assert (
        standard.epochs,
        standard.batch,
        standard.top_learning_rate,
        standard.warmup_epochs,
    ) == (90, 1024, 0.4, 5)
    # A warm-up leaves an epoch to train in.
    assert imagenet.named("standard", epochs=3).warmup_epochs == 2
    assert imagenet.named("small", order="usual", rate=0.3).rate == 0
    assert (
        imagenet.named("small", data="/images/pets/").name
        == "pets-resnet50-relu-ic-conv-0.05-64px-12epochs-seed0"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "Received: epochs=0"),
        ({"order": "icc"}, "did you mean 'ic'"),
        ({"rate": 1}, "Received: rate=1"),
        ({"warmup_epochs": 12}, "from 0 to below the 12 epochs"),
        ({"image_size": 16}, "Received: image_size=16"),
        ({"dtype": "float16"}, "Received: dtype='float16'"),
        ({"label_smooth": 0.1}, "did you mean 'label_smoothing'?"),
        ({"synchronized": "yes"}, "Received: synchronized='yes'"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        imagenet.named("small", **changes)
    with pytest.raises(ValueError, match="did you mean 'small'"):
        imagenet.named("smal")


def test_shares_of_a_batch():
    recipe = imagenet.Recipe(batch=96, accumulate=2)
    assert recipe.share(8) == 12
    with pytest.raises(ValueError, match=r"5 x 2; 100 would be\. Received: batch=96"):
        recipe.share(5)


def test_resnet_is_version_1_5():
    model = resnet(50, (64, 64, 3), 1000)
    # Torchvision's number.
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 25_557_032
    assert model.get_layer("stage2_block1_conv1").strides == (1, 1) and model.get_layer(
        "stage2_block1_conv2"
    ).strides == (2, 2)
    assert model.get_layer("stage4_block3_relu").output.shape == (None, 2, 2, 2048)
    with pytest.raises(ValueError, match="Received: depth=18"):
        resnet(18, (64, 64, 3), 10)
    assert (
        sum(
            int(np.prod(weight.shape))
            for weight in resnet(101, (64, 64, 3), 1000).trainable_weights
        )
        == 44_549_160
    )


def test_the_network_standardizes_pixels_and_penalizes_kernels_alone(tiny):
    recipe = imagenet.named("small", model="Tiny", image_size=32, weight_decay=2.0)
    model = imagenet.network(recipe, 4)
    assert {layer.name for layer in model._flatten_layers() if isinstance(layer, keras_ic.IC)} == {
        "conv1_ic",
        "conv2_ic",
        "classifier_ic",
    }
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    standardized = keras.ops.convert_to_numpy(model.get_layer("standardized")(pixels))
    np.testing.assert_allclose(
        standardized, (pixels - np.array(MEAN)) / np.array(STD), rtol=1e-4, atol=1e-5
    )
    kernels = sum(
        float(np.square(keras.ops.convert_to_numpy(weight)).sum())
        for weight in model.weights
        if weight.name == "kernel"
    )
    # Half of the decay, times the squares.
    assert float(keras.ops.convert_to_numpy(sum(model.losses))) == pytest.approx(kernels, rel=1e-5)
    one, two = (imagenet.network(recipe, 4).get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    other = imagenet.network(
        imagenet.named("small", model="Tiny", image_size=32, seed=1), 4
    ).get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_synchronized_and_bfloat16(tiny):
    model = imagenet.network(
        imagenet.named("small", model="Tiny", order="usual", image_size=32, dtype="mixed_bfloat16"),
        4,
    )
    assert (
        model.output.dtype == "float32"
        and model.get_layer("tiny").get_layer("conv1").compute_dtype == "bfloat16"
    )
    assert keras.config.dtype_policy().name == "float32"
    if keras.backend.backend() == "tensorflow":
        model = imagenet.network(
            imagenet.named("small", model="Tiny", image_size=32, synchronized=True), 4
        )
        assert model.get_layer("tiny").get_layer("conv1_ic").synchronized


def test_unknown_networks():
    with pytest.raises(ValueError, match="did you mean 'resnet50'"):
        imagenet.network(imagenet.named("small", model="resnet5O"), 4)


def test_the_learning_rate_rises_and_falls(tiny):
    recipe = imagenet.named(
        "small",
        model="Tiny",
        image_size=32,
        epochs=5,
        warmup_epochs=1,
        batch=256,
        learning_rate=0.4,
    )
    model = imagenet.network(recipe, 4)
    compile_for(model, recipe, 10)
    rates = [float(model.optimizer._learning_rate(step)) for step in range(50)]
    np.testing.assert_allclose(rates[:10], 0.4 * np.arange(10) / 10, atol=1e-6)
    np.testing.assert_allclose(
        rates[10:], 0.2 * (1 + np.cos(np.pi * np.arange(40) / 40)), atol=1e-6
    )


@pytest.mark.tensorflow_only
def test_the_plan(shards, tiny):
    recipe = imagenet.named(
        "small", data=str(shards), model="Tiny", image_size=32, batch=8, epochs=3
    )
    plan = imagenet.plan(recipe, 2)
    assert (plan.share, plan.steps, plan.images, plan.classes) == (
        4,
        7,
        {"train": 62, "validation": 19},
        4,
    )
    model = imagenet.network(recipe, 4)
    assert plan.parameters == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert plan.memory["weights"] == 4 * (
        3 * plan.parameters
        + sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights)
    )
    assert plan.memory["activations"] >= 4 * 4 * 16 * 16 * 8  # the first convolution's output alone
    assert plan.hours == pytest.approx(plan.step_seconds * 7 * 3 / 3600)
    text = str(plan)
    assert (
        "8 on 2 replica(s): 4 on each, in 1 part(s)" in text
        and "7 an epoch, 21 in 3 epochs" in text
        and "MB a step and replica" in text
    )
    assert "not measured" in str(imagenet.plan(recipe, measure=False))
    with pytest.raises(ValueError, match="Received: batch=8"):
        imagenet.plan(recipe, 3)
    with pytest.raises(ValueError, match="Received: 62 images, batch=64"):
        imagenet.plan(imagenet.named("small", data=str(shards), batch=64))
