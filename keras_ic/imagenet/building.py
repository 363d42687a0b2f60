"""The network of a recipe, compiled."""

import re

import keras

from keras_ic import applications, surgery
from keras_ic.experiments.networks import building, for_standardized, penalized, stock_networks
from keras_ic.imagenet.recipe import Recipe
from keras_ic.imagenet.resnet import resnet
from keras_ic.utils.validation import did_you_mean

# Of the pixels of ImageNet, red, green and blue, from 0 to 255.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
VERSION_1_5 = {"resnet50": 50, "resnet101": 101}


def network(recipe: Recipe, classes: int) -> keras.Model:
    """Builds the network of a recipe, from the pixels of images to logits; the first layer
    standardizes them.

    Args:
        recipe: The `Recipe`.
        classes: Integer above 0.

    Returns:
        A Functional `keras.Model` of uint8 images `(batch, size, size, 3)` to float32 `(batch,
        classes)`, not compiled. The same recipe gives the same weights.

    Raises:
        ValueError: For an unknown network, with the nearest; or if it cannot take images of this
            size.

    Example:

    ```python
    from keras_ic import imagenet

    model = imagenet.network(imagenet.named("small", model="MobileNetV2"), 10)
    assert model.input_shape == (None, 64, 64, 3) and model.output_shape == (None, 10)
    ```
    """
    shape = (recipe.image_size, recipe.image_size, 3)
    with building(recipe.seed, recipe.dtype):
        usual = penalized(_usual(recipe.model, shape, classes), recipe.weight_decay / 2)
        body = usual if recipe.order == "usual" else surgery.rewrite(usual, recipe.rate)
        if recipe.synchronized:
            for layer in body._flatten_layers():
                if hasattr(layer, "synchronized"):
                    layer.synchronized = True
        images = keras.Input(shape, dtype="uint8", name="pixels")
        variance = [deviation**2 for deviation in STD]
        pixels = keras.layers.Normalization(
            mean=MEAN, variance=variance, dtype="float32", name="standardized"
        )(images)
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(body(pixels))
    return keras.Model(images, logits, name=body.name)


def compile_for(model: keras.Model, recipe: Recipe, steps: int) -> None:
    """Compiles a model as the recipe has it, for `steps` steps an epoch."""
    warm, top = recipe.warmup_epochs * steps, recipe.top_learning_rate
    decay = recipe.epochs * steps - warm
    if warm:
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, decay, warmup_target=top, warmup_steps=warm
        )
    else:
        schedule = keras.optimizers.schedules.CosineDecay(top, decay)
    averaged = {"use_ema": True, "ema_momentum": recipe.ema} if recipe.ema else {}
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, **averaged),
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe.label_smoothing
        ),
        # Weighted, so that what fills up the last batches of a test, and damaged images, do not
        # count.
        weighted_metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(5, name="top5"),
            keras.metrics.CategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        ],
    )


def _usual(name: str, shape, classes: int) -> keras.Model:
    if name in VERSION_1_5:
        return resnet(VERSION_1_5[name], shape, classes)
    if re.fullmatch(r"resnet\d+", name):  # for images of a few dozen pixels
        return applications.ResNet(
            int(name.removeprefix("resnet")),
            "usual",
            classes=classes,
            input_shape=shape,
            weight_decay=0.0,
        )
    stock = stock_networks()
    if name not in stock:
        hint = did_you_mean(name, [*VERSION_1_5, *stock])
        choices = (
            "resnet50, resnet101, a ResNet for small images (resnet20 ...) or a network of"
            " keras.applications"
        )
        raise ValueError(f"`model` must be {choices}{hint} Received: model={name!r}")
    return for_standardized(stock[name], shape, classes)
