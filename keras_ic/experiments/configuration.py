"""What makes two runs the same run."""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

from keras_ic.utils.validation import checked_bool, checked_choice, checked_int, checked_real

DATA = ("digits", "cifar10", "cifar100")
ORDERS = ("usual", "relu-ic-conv", "ic-conv-relu", "conv-relu-ic")
ALIASES = {"ic": "relu-ic-conv"}
CHOICES = {
    "data": DATA,
    "order": (*ORDERS, *ALIASES),
    "rate_schedule": ("constant", "anneal", "grow"),
    "rate_depth": ("uniform", "rising", "falling", "linear", "stages"),
    "ic_layers": ("all", "convolutions", "classifier", "alternate"),
    "optimizer": ("adam", "sgd"),
    "schedule": ("steps", "cosine", "one-cycle", "constant"),
    "dtype": ("float32", "mixed_bfloat16"),
}
# What the usual order does not use, with the value that says so.
OF_IC = {
    "rate": 0.0,
    "rate_schedule": "constant",
    "rate_depth": "uniform",
    "rates": None,
    "ic_layers": "all",
    "keep_batch_norm": False,
}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One run: its data, network, order of layers, recipe and seed.

    The defaults are the recipe of Chen et al. 2019, as far as they give it, in 200 epochs: Adam at
    1e-3, a tenth of it after 40 %, 60 % and 80 % of the steps, batches of 64, an L2 penalty of 1e-4
    on every kernel, He-normal kernels, flips and crops after padding by 4 pixels, standardized
    channels.

    Args:
        data: `"digits"`, `"cifar10"` or `"cifar100"`. Defaults to `"cifar10"`.
        model: `"small"`, `"resnet"` and a depth (`"resnet20"`), `"vgg16"`, `"densenet"` and a depth
            (`"densenet40"`), or the name of a network of `keras.applications`, which
            `keras_ic.rewrite` brings into its IC form. Defaults to `"resnet20"`.
        order: `"usual"` (Conv-BatchNorm-ReLU), or with IC layers: `"relu-ic-conv"`, which `"ic"` is
            another name of, `"ic-conv-relu"` or `"conv-relu-ic"`. Defaults to `"ic"`.
        rate: Float in `[0, 1)`, the probability of the IC layers to drop a value. Defaults to
            `0.05`.
        seed: Integer in `[0, 2**19)`: kernels, masks, order and augmentation of the images follow
            from it. Defaults to `0`.
        epochs: Integer above 0; the schedules stretch or shrink with it. Defaults to `200`.
        batch: Integer above 0, images a step. Defaults to `64`.
        train_size: Integer above 0, to train on the first images alone. Defaults to `None`: all.
        image_size: Integer above 0, pixels to which height and width are resized. Defaults to
            `None`: as they are.
        augment: Boolean. Defaults to `None`: not for the digits, which are too small to be shifted
            and change their meaning when flipped.
        optimizer: `"adam"` or `"sgd"` (Nesterov momentum 0.9). Defaults to `"adam"`.
        learning_rate: Float above 0, the largest of the schedule. Defaults to `1e-3`.
        schedule: `"steps"` (a tenth after 40 %, 60 % and 80 % of the steps), `"cosine"` (to 0),
            `"one-cycle"` (linearly from a 25th up in the first 30 %, then a cosine to 0; Smith and
            Topin, 1708.07120) or `"constant"`. Defaults to `"steps"`.
        weight_decay: Float of 0 or more: `weight_decay * sum(kernel**2)` is added to the loss.
            Defaults to `1e-4`.
        decoupled_weight_decay: Float of 0 or more: each step takes that share of every kernel away,
            times the learning rate (Loshchilov and Hutter, 1711.05101). Biases and normalizations
            are left alone. Defaults to `0.0`.
        dropout: Float in `[0, 1)`, of a Dropout in the usual place, behind the activation that
            follows a BatchNormalization; in the usual order alone. Defaults to `0.0`: none.
        rate_schedule: `"constant"`, `"anneal"` (from `rate` down to 0 in ten equal parts of the
            epochs) or `"grow"` (from a tenth of `rate` up to it). Defaults to `"constant"`.
        rate_depth: `"uniform"`, `"rising"` (from 0 before the first weight layer to twice `rate`
            before the last), `"falling"`, `"linear"` (from the first of `rates` to the last) or
            `"stages"` (each of `rates` in an equal part of the depth; three of them are those of
            the three stages of the CIFAR ResNets). Defaults to `"uniform"`.
        rates: Tuple of floats in `[0, 1)`, two for `"linear"`, one or more for `"stages"`; `rate`
            is then their mean, whatever is given. Defaults to `None`, for the other depths.
        ic_layers: Which weight layers have their IC layer: `"all"`, `"convolutions"` (not the
            classifier), `"classifier"` (alone) or `"alternate"` (every second, from the first on).
            Defaults to `"all"`.
        keep_batch_norm: Boolean, whether a BatchNormalization stands behind each convolution beside
            the IC layers. Defaults to `False`.
        recalibrate: Boolean, whether `keras_ic.recalibrate` estimates the moving statistics anew at
            the end. Defaults to `False`.
        validation: Float in `[0, 1)`, the share of the training images that is left out of the
            training and judged on in place of the test set. Which images those are does not depend
            on `seed`. Defaults to `0.0`: the test set.
        dtype: `"float32"` or `"mixed_bfloat16"`. Defaults to `"float32"`.

    In the usual order, what belongs to IC layers is set to the value that says so: `rate=0.0` and
    the defaults of the others. Two configurations are then equal exactly if they are the same run.

    Raises:
        ValueError: For an argument that the above excludes, with the nearest of the names that
            exist.

    Example:

    ```python
    from keras_ic.experiments import Configuration

    configuration = Configuration(order="ic", rate=0.1, epochs=20)
    assert configuration.order == "relu-ic-conv"
    assert configuration.name == "cifar10-resnet20-relu-ic-conv-0.1-20epochs-seed0"
    assert Configuration(order="usual", rate=0.1) == Configuration(order="usual", rate=0.2)
    ```
    """

    data: str = "cifar10"
    model: str = "resnet20"
    order: str = "ic"
    rate: float = 0.05
    seed: int = 0
    epochs: int = 200
    batch: int = 64
    train_size: int | None = None
    image_size: int | None = None
    augment: bool | None = None
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "steps"
    weight_decay: float = 1e-4
    decoupled_weight_decay: float = 0.0
    dropout: float = 0.0
    rate_schedule: str = "constant"
    rate_depth: str = "uniform"
    rates: tuple[float, ...] | None = None
    ic_layers: str = "all"
    keep_batch_norm: bool = False
    recalibrate: bool = False
    dtype: str = "float32"
    validation: float = 0.0

    def __post_init__(self):
        for name, choices in CHOICES.items():
            checked_choice(name, getattr(self, name), choices)
        values: dict[str, Any] = {"order": ALIASES.get(self.order, self.order)}
        for name, what in (
            ("rate", "probability to drop a value"),
            ("dropout", "probability to drop a value"),
            ("validation", "share of images"),
        ):
            values[name] = checked_real(
                name,
                getattr(self, name),
                f"a number in [0, 1), the {what}",
                lambda value: 0 <= value < 1,
            )
        for name in ("weight_decay", "decoupled_weight_decay"):
            values[name] = checked_real(
                name, getattr(self, name), "a number of 0 or more", lambda value: value >= 0
            )
        values["learning_rate"] = checked_real(
            "learning_rate", self.learning_rate, "a number above 0", lambda value: value > 0
        )
        values["seed"] = checked_int(
            "seed", self.seed, "an integer in [0, 2**19)", lambda value: 0 <= value < 2**19
        )
        for name in ("epochs", "batch"):
            values[name] = checked_int(
                name, getattr(self, name), "an integer above 0", lambda value: value > 0
            )
        for name in ("train_size", "image_size"):
            if getattr(self, name) is not None:
                values[name] = checked_int(
                    name, getattr(self, name), "None or an integer above 0", lambda value: value > 0
                )
        values["augment"] = (
            self.data != "digits" if self.augment is None else checked_bool("augment", self.augment)
        )
        for name in ("keep_batch_norm", "recalibrate"):
            values[name] = checked_bool(name, getattr(self, name))
        if values["order"] == "usual":
            values.update(OF_IC)
        elif self.rates is not None or self.rate_depth in ("linear", "stages"):
            values["rates"] = _checked_rates(self.rates, self.rate_depth)
            values["rate"] = sum(values["rates"]) / len(values["rates"])
        elif self.rate_depth != "uniform" and values["rate"] >= 0.5:
            raise ValueError(
                "`rate` must be below 0.5 where it rises or falls to twice itself. Received:"
                f" rate={self.rate}"
            )
        if values["dropout"] and values["order"] != "usual":
            raise ValueError(
                '`dropout` is for the order "usual"; IC layers drop at `rate`. Received:'
                f" dropout={self.dropout} with order={self.order!r}"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """A name for the run's folder, unique to the configuration: the main values, then all
        others that are not the default.
        """
        main = [
            self.data,
            self.model,
            self.order,
            *([] if self.order == "usual" else [f"{self.rate:g}"]),
            f"{self.epochs}epochs",
            f"seed{self.seed}",
        ]
        defaults = Configuration(data=self.data, order=self.order)
        shown = {"data", "model", "order", "rate", "epochs", "seed"}
        others = [field.name for field in dataclasses.fields(self) if field.name not in shown]
        return "-".join(
            main
            + [
                f"{name}={getattr(self, name)}"
                for name in others
                if getattr(self, name) != getattr(defaults, name)
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them; `Configuration(**values)` gives an equal configuration."""
        return dataclasses.asdict(self)


def grid(**values) -> list[Configuration]:
    """All combinations of the given values, each once.

    Args:
        **values: For each argument of `Configuration`, one value or a list of values; for `rates`,
            a list of tuples.

    Returns:
        List of `Configuration`, with the seeds in the outermost loop, so that a grid that is
        stopped half-way has seen all its other values.

    Raises:
        ValueError: For a value that `Configuration` refuses, or an unknown name.

    Example:

    ```python
    from keras_ic.experiments import grid

    runs = grid(order=["usual", "ic"], rate=[0.0, 0.05], seed=[0, 1], epochs=20)
    assert len(runs) == 6  # the usual order has no rate
    assert [run.seed for run in runs] == [0, 0, 0, 1, 1, 1]
    ```
    """
    known = [field.name for field in dataclasses.fields(Configuration)]
    for name in values:
        checked_choice("the name of an argument", name, known)
    names = sorted(values, key=lambda name: name != "seed")
    lists = [
        (
            list(values[name])
            if isinstance(values[name], Iterable) and not isinstance(values[name], str)
            else [values[name]]
        )
        for name in names
    ]
    return list(
        dict.fromkeys(
            Configuration(**dict(zip(names, combination, strict=True)))
            for combination in itertools.product(*lists)
        )
    )


def _checked_rates(rates: Any, rate_depth: str) -> tuple[float, ...]:
    if rate_depth not in ("linear", "stages"):
        raise ValueError(
            f'`rates` is for the depths "linear" and "stages". Received: rates={rates!r} with'
            f" rate_depth={rate_depth!r}"
        )
    wanted = "the first rate and the last" if rate_depth == "linear" else "one rate or more"
    if not isinstance(rates, (tuple, list)) or (
        len(rates) != 2 if rate_depth == "linear" else not rates
    ):
        raise ValueError(
            f"`rates` must be a tuple of {wanted} for the depth {rate_depth!r}. Received:"
            f" rates={rates!r}"
        )
    return tuple(
        checked_real(
            "rates",
            rate,
            "numbers in [0, 1), the probabilities to drop a value",
            lambda value: 0 <= value < 1,
        )
        for rate in rates
    )
