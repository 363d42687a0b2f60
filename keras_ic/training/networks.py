"""The network of a configuration, by its name."""

import contextlib
import inspect
import math
import random
import re
from collections.abc import Callable

import keras

from keras_ic import applications, surgery
from keras_ic.training.config import TrainingConfig
from keras_ic.training.rate_schedule import ic_layers, rates_over_depth
from keras_ic.utils.validation import did_you_mean

FAMILIES: dict[str, Callable] = {
    r"small": lambda **common: applications.PlainCNN(
        (16, 32, 32), (1, 2, 1), (), flatten=True, name="small", **common
    ),
    r"cnn6": lambda **common: applications.PlainCNN(name="cnn6", **common),
    r"cnn6-w(\d+)": lambda width, **common: applications.PlainCNN(
        [width * factor for factor in (1, 1, 2, 2, 4, 4)], name=f"cnn6-w{width}", **common
    ),
    r"vgg16": applications.VGG16,
    r"resnet(\d+)": applications.ResNet,
    r"densenet(\d+)": applications.DenseNet,
    r"resnet(\d+)-v1\.5": applications.ResNetV15,
}
EXAMPLES = (
    "small",
    "cnn6",
    "vgg16",
    "resnet20",
    "resnet110",
    "resnet164",
    "densenet40",
    "resnet50-v1.5",
)
# Of the pixels of ImageNet, red, green and blue, from 0 to 255.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def network(
    config: TrainingConfig, shape: tuple[int, ...], classes: int, is_standardized: bool = True
) -> keras.Model:
    """Builds the network of a configuration, not compiled, from images to float32 logits.

    Networks of `keras_ic.applications` come in every order. Those of `keras.applications` come as
    the baseline, and in the orders that `keras_ic.rewrite` makes of it: `"relu-ic-conv"` and
    `"conv-bn-relu-ic"`.

    Args:
        config: The `TrainingConfig`.
        shape: Tuple `(height, width, channels)` of the images.
        classes: Integer above 0, the number of classes.
        is_standardized: Boolean, whether the images are standardized. Else they are uint8 pixels,
            and the first layer standardizes them with ImageNet's mean and deviation. Defaults to
            `True`.

    Returns:
        A functional `keras.Model`, `(batch, height, width, channels)` to `(batch, classes)`. The
        same configuration gives the same weights and masks.

    Raises:
        ValueError: For an unknown name of a network, with the nearest; an order that it does not
            come in; images that it cannot take.

    Example:

    ```python
    from keras_ic.training import TrainingConfig, network

    model = network(TrainingConfig(model="resnet20", rate=0.1), (32, 32, 3), 10)
    assert model.get_layer("stage2_block1_conv2_ic").rate == 0.1
    ```
    """
    size = config.image_size
    inner = tuple(shape) if size is None else (size, size, shape[-1])
    with _building(config.seed, _policy(config.dtype)):
        model = _named(config, inner, classes)
        for layer in model._flatten_layers():
            if config.momentum is not None and hasattr(layer, "momentum"):
                layer.momentum = config.momentum
            if config.synchronized and hasattr(layer, "synchronized"):
                layer.synchronized = True
    layers = ic_layers(model)
    for layer, rate in zip(layers, rates_over_depth(config, len(layers)), strict=True):
        layer.rate = rate
    return _between_images_and_logits(model, tuple(shape), inner, is_standardized)


def is_rewritten(config: TrainingConfig) -> bool:
    """Whether the network of a configuration comes out of `keras_ic.rewrite`."""
    return _family(str(config.model)) is None and applications.ORDERS[config.order].has_ic


def stock_networks() -> dict[str, Callable]:
    """The networks of `keras.applications` by name."""
    return {
        name: value for name, value in vars(keras.applications).items() if inspect.isfunction(value)
    }


def count_parameters(model: keras.Model) -> int:
    """The trainable parameters of a model."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def _policy(dtype: str) -> str:
    if dtype != "auto":
        return dtype
    return "mixed_bfloat16" if _has_accelerator() else "float32"


def _has_accelerator() -> bool:
    return not all("cpu" in device.lower() for device in keras.distribution.list_devices())


def _between_images_and_logits(model, shape, inner, is_standardized):
    """The model with what comes before it and after it, where there is something."""
    if model.output.dtype != "float32":
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(model.output)
        model = keras.Model(model.input, logits, name=model.name)
    if shape == inner and is_standardized:
        return model
    dtype = None if is_standardized else "uint8"
    images = x = keras.Input(shape, dtype=dtype, name="given_images")
    if not is_standardized:
        variance = [deviation**2 for deviation in STD]
        x = keras.layers.Normalization(
            mean=MEAN, variance=variance, dtype="float32", name="standardized"
        )(x)
    if shape != inner:
        x = keras.layers.Resizing(*inner[:2], dtype="float32", name="resized")(x)
    return keras.Model(images, model(x), name=model.name)


@contextlib.contextmanager
def _building(seed: int, dtype: str):
    """Has what is built within take its seeds from this one, and this dtype policy."""
    # Keras takes the seeds of layers that have none from Python's generator.
    state, before = random.getstate(), keras.config.dtype_policy()
    random.seed(seed)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        random.setstate(state)
        keras.config.set_dtype_policy(before)


def _family(name: str) -> tuple[Callable, list[int]] | None:
    """The function that builds a network of this name, and the numbers in the name."""
    for pattern, build in FAMILIES.items():
        found = re.fullmatch(pattern, name)
        if found:
            return build, [int(number) for number in found.groups()]
    return None


def _named(config: TrainingConfig, shape: tuple[int, ...], classes: int) -> keras.Model:
    name = str(config.model)
    family = _family(name)
    if family is not None:
        build, numbers = family
        momentum = {} if config.momentum is None else {"momentum": config.momentum}
        return build(
            *numbers,
            order=config.order,
            rate=config.rate,
            classes=classes,
            input_shape=shape,
            weight_decay=config.weight_decay,
            seed=config.seed,
            dropout=config.dropout,
            per_channel=config.per_channel,
            classifier_ic=config.classifier_ic,
            **momentum,
        )
    stock = stock_networks()
    if name not in stock:
        hint = did_you_mean(name, [*EXAMPLES, *stock])
        raise ValueError(
            f"`model` must be one of {', '.join(EXAMPLES)} (the families in other depths too) or a"
            f" network of keras.applications{hint} Received: model={name!r}"
        )
    return _of_keras(config, stock[name], shape, classes)


def _of_keras(config: TrainingConfig, build: Callable, shape, classes) -> keras.Model:
    """A network of `keras.applications`, with random weights and for standardized images, rewritten
    where the order asks for it.
    """
    made = {"conv-bn-relu": None, "relu-ic-conv": "remove", "conv-bn-relu-ic": "keep"}
    for wrong, what in (
        (config.order not in made, f"order={config.order!r}"),
        (config.per_channel, "per_channel=True"),
        (not config.classifier_ic, "classifier_ic=False"),
    ):
        if wrong:
            raise ValueError(
                f"A network of keras.applications comes in the orders {', '.join(made)} alone, with"
                " an IC layer before each weight layer, and drops single values. Received:"
                f" {what} with model={config.model!r}"
            )
    try:
        stock = build(weights=None, input_shape=shape, classes=classes, classifier_activation=None)
    except ValueError as error:
        least = re.search(r"at least (\d+)", str(error))
        size = least[1] if least else "N"
        raise ValueError(
            f"`image_size={size}` (`--image-size {size}`) resizes the images for {config.model}."
            f" {error}"
        ) from error
    model = keras.models.clone_model(
        stock,
        clone_function=lambda layer: _penalized(layer, config.weight_decay),
        call_function=lambda layer, *args, **kwargs: _called(config, layer, *args, **kwargs),
    )
    normalization = made[config.order]
    if normalization is None:
        return model
    return surgery.rewrite(model, config.rate, normalization=normalization)


def _penalized(layer, weight_decay):
    settings = layer.get_config()
    for name in ("kernel_regularizer", "depthwise_regularizer", "pointwise_regularizer"):
        if name in settings and weight_decay:
            settings[name] = keras.regularizers.L2(weight_decay)
    return layer.__class__.from_config(settings)


def _called(config, layer, *args, **kwargs):
    """A call without the preprocessing that the network would do itself, and with the Dropout of
    the configuration after activations that follow a BatchNormalization.
    """
    if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
        return args[0]
    outputs = layer(*args, **kwargs)
    is_activation = isinstance(layer, (keras.layers.ReLU, keras.layers.Activation))
    if config.dropout and is_activation:
        before = args[0]._keras_history.operation
        if isinstance(before, keras.layers.BatchNormalization):
            # With a seed of its own, since on torch it would else draw from torch's generator.
            seed = random.randrange(2**31)
            name = f"{layer.name}_dropout"
            outputs = keras.layers.Dropout(config.dropout, seed=seed, name=name)(outputs)
    return outputs
