"""The network of a configuration, by its name."""

import contextlib
import inspect
import random
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_ic import applications, surgery
from keras_ic.experiments.configuration import Configuration
from keras_ic.experiments.schedules import ic_layers
from keras_ic.utils.validation import did_you_mean

FAMILIES: dict[str, Callable] = {"resnet": applications.ResNet, "densenet": applications.DenseNet}
SINGLE = ("small", "vgg16")
EXAMPLES = ("resnet20", "resnet110", "resnet164", "densenet40")  # of the families, for the error


def network(
    configuration: Configuration, input_shape: tuple[int, ...], classes: int
) -> keras.Model:
    """Builds the network of a configuration, not compiled, from standardized images to logits.

    Args:
        configuration: The `Configuration`.
        input_shape: Tuple `(height, width, channels)` of the images.
        classes: Integer above 0, the number of classes.

    Returns:
        A functional `keras.Model`, `(batch, height, width, channels)` to `(batch, classes)`. The
        same configuration gives the same weights and masks.

    Raises:
        ValueError: For an unknown name of a network, with the nearest; an order that it does not
            come in; images that it cannot take.

    Example:

    ```python
    from keras_ic.experiments import Configuration, network

    model = network(Configuration(model="resnet20", rate=0.1), (32, 32, 3), 10)
    assert model.get_layer("stage2_block1_conv2_ic").rate == 0.1
    ```
    """
    size = configuration.image_size
    shape = input_shape if size is None else (size, size, input_shape[-1])
    with building(configuration.seed, configuration.dtype):
        model = _variant(configuration, _named(configuration, shape, classes))
        if configuration.dtype != "float32":
            logits = keras.layers.Activation("linear", dtype="float32", name="logits")(model.output)
            model = keras.Model(model.input, logits, name=model.name)
    if shape != input_shape:
        images = keras.Input(input_shape, name="images_as_they_are")
        model = keras.Model(
            images,
            model(keras.layers.Resizing(size, size, name="resized")(images)),
            name=model.name,
        )
    for layer, rate in zip(
        ic_layers(model), rates(configuration, len(ic_layers(model))), strict=True
    ):
        layer.rate = rate
    return model


def rates(configuration: Configuration, layers: int) -> list[float]:
    """The rate of each IC layer, first to last, before the schedule over the epochs."""
    last = max(layers - 1, 1)
    if configuration.rates is not None:
        if configuration.rate_depth == "linear":
            return np.linspace(configuration.rates[0], configuration.rates[-1], layers).tolist()
        parts = len(configuration.rates)
        return [
            configuration.rates[min(parts * index // last, parts - 1)] for index in range(layers)
        ]
    depths = [index / last for index in range(layers)]
    factors = {
        "uniform": lambda depth: 1.0,
        "rising": lambda depth: 2 * depth,
        "falling": lambda depth: 2 - 2 * depth,
    }
    return [configuration.rate * factors[configuration.rate_depth](depth) for depth in depths]


@contextlib.contextmanager
def building(seed: int, dtype: str):
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


def stock_networks() -> dict[str, Callable]:
    """The networks of `keras.applications` by name."""
    return {
        name: value for name, value in vars(keras.applications).items() if inspect.isfunction(value)
    }


def for_standardized(build: Callable, shape: tuple[int, ...], classes: int) -> keras.Model:
    """A network of `keras.applications`, with random weights and for images that are standardized:
    without preprocessing of its own.
    """
    model = build(weights=None, input_shape=shape, classes=classes, classifier_activation=None)
    own = (keras.layers.Rescaling, keras.layers.Normalization)

    def call(layer, *args, **kwargs):
        return args[0] if isinstance(layer, own) else layer(*args, **kwargs)

    return keras.models.clone_model(model, call_function=call)


def penalized(model: keras.Model, factor: float) -> keras.Model:
    """A new model like it, whose kernels have an L2 penalty of this factor."""

    def penalize(layer):
        config = layer.get_config()
        for name in ("kernel_regularizer", "depthwise_regularizer", "pointwise_regularizer"):
            if name in config and factor:
                config[name] = keras.regularizers.L2(factor)
        return layer.__class__.from_config(config)

    return keras.models.clone_model(model, clone_function=penalize)


def _named(configuration: Configuration, shape: tuple[int, ...], classes: int) -> keras.Model:
    name, decay = configuration.model, configuration.weight_decay
    common: dict[str, Any] = {
        "order": configuration.order,
        "rate": configuration.rate,
        "classes": classes,
        "input_shape": shape,
    }
    common.update(weight_decay=decay, seed=configuration.seed)
    family = re.fullmatch(r"([a-z]+)(\d+)", name)
    if name == "vgg16":
        return applications.VGG16(**common)
    if family and family[1] in FAMILIES:
        return FAMILIES[family[1]](int(family[2]), **common)
    stock = stock_networks()
    if name not in ("small", *stock):
        hint = did_you_mean(name, [*SINGLE, *EXAMPLES, *stock])
        choices = (
            f"{', '.join(SINGLE + EXAMPLES)} (the families in other depths too) or a network of"
            " keras.applications"
        )
        raise ValueError(f"`model` must be one of {choices}{hint} Received: model={name!r}")
    if configuration.order not in ("usual", "relu-ic-conv"):
        raise ValueError(
            f'{name} comes in the orders "usual" and "ic" alone. Received:'
            f" order={configuration.order!r} with model={name!r}"
        )
    usual = penalized(
        (
            _small(shape, classes)
            if name == "small"
            else for_standardized(stock[name], shape, classes)
        ),
        decay,
    )
    return usual if configuration.order == "usual" else surgery.rewrite(usual, configuration.rate)


def _small(input_shape, classes) -> keras.Model:
    """Three convolutions and a classifier, for images of a few pixels."""
    inputs = x = keras.Input(input_shape, name="images")
    for index, (filters, strides) in enumerate(((16, 1), (32, 2), (32, 1)), 1):
        x = keras.layers.Conv2D(
            filters,
            3,
            strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            data_format="channels_last",
            name=f"conv{index}",
        )(x)
        x = keras.layers.BatchNormalization(name=f"conv{index}_bn")(x)
        x = keras.layers.ReLU(name=f"conv{index}_relu")(x)
    return keras.Model(
        inputs,
        keras.layers.Dense(classes, name="classifier")(keras.layers.Flatten(name="flatten")(x)),
        name="small",
    )


def _variant(configuration: Configuration, model: keras.Model) -> keras.Model:
    """The network with what the configuration adds to it or takes from it."""
    left_out = _left_out(configuration.ic_layers, [layer.name for layer in ic_layers(model)])
    if not (left_out or configuration.dropout or configuration.keep_batch_norm):
        return model

    def call(layer, *args, **kwargs):
        if layer.name in left_out:
            return args[0]
        outputs = layer(*args, **kwargs)
        if (
            configuration.dropout
            and _is_activation(layer)
            and isinstance(_producer(args[0]), keras.layers.BatchNormalization)
        ):
            # With a seed of its own, since on torch it would else draw from torch's generator.
            seed = random.randrange(2**31)
            outputs = keras.layers.Dropout(
                configuration.dropout, seed=seed, name=f"{layer.name}_dropout"
            )(outputs)
        elif configuration.keep_batch_norm and isinstance(layer, keras.layers.Conv2D):
            outputs = keras.layers.BatchNormalization(name=f"{layer.name}_bn")(outputs)
        return outputs

    return keras.models.clone_model(model, call_function=call)


def _is_activation(layer) -> bool:
    return isinstance(layer, (keras.layers.ReLU, keras.layers.Activation))


def _producer(tensor):
    return tensor._keras_history.operation


def _left_out(which: str, names: list[str]) -> set[str]:
    """The IC layers that go; the last is the classifier's."""
    kept = {
        "all": names,
        "convolutions": names[:-1],
        "classifier": names[-1:],
        "alternate": names[::2],
    }[which]
    return set(names) - set(kept)
