"""What makes two runs the same run: each option once, with its default, choices, check and help."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from keras_ic.applications.orders import ALIASES, ORDERS
from keras_ic.utils.validation import (
    checked_bool,
    checked_choice,
    checked_int,
    checked_rate,
    checked_share,
    natural_int,
    natural_real,
    positive_int,
    positive_real,
)

IN_MEMORY = ("digits", "cifar10", "cifar100")
SCHEDULES = ("steps", "cosine", "one-cycle", "constant")
RATE_SCHEDULES = ("constant", "anneal", "grow")
BASE_BATCH = 256  # the batch that a learning rate is for where it is scaled
# What the orders without IC layers do not use, with the value that says so.
OF_IC = {
    "rate": 0.0,
    "rate_schedule": "constant",
    "rate_depth": "uniform",
    "rates": None,
    "classifier_ic": True,
}


def _field(default: Any, help: str, check: Callable | None = None, choices: Iterable[str] = ()):
    metadata = {"help": help, "check": check, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


def _seed(name, value):
    return checked_int(name, value, "an integer in [0, 2**19)", lambda value: 0 <= value < 2**19)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """One run: its data, network, order of layers, recipe and seed.

    The defaults are the recipe of Chen et al. 2019, as far as they give it, in 200 epochs: Adam at
    1e-3, a tenth of it after 40 %, 60 % and 80 % of the steps, batches of 64, an L2 penalty of 1e-4
    on every kernel, He-normal kernels, flips and crops after padding by 4 pixels, standardized
    channels; but moving statistics are re-estimated before each validation. Other sets of values
    are in `keras_ic.training.preset`.

    Every field is described in its own metadata, `field.metadata["help"]`, from which the options
    of `keras-ic train` are made; `keras-ic train --help` lists them.

    In the orders without IC layers, what belongs to IC layers is set to the value that says so:
    `rate=0.0` and the defaults of the others. Two configurations are then equal exactly if they are
    the same run.

    Raises:
        ValueError: For a value that is not allowed, with the nearest of the names that exist.

    Example:

    ```python
    from keras_ic.training import TrainingConfig

    config = TrainingConfig(order="ic", rate=0.1, epochs=20)
    assert config.order == "relu-ic-conv"
    assert config.name == "cifar10-resnet20-relu-ic-conv-0.1-20epochs-seed0"
    assert TrainingConfig(order="usual", rate=0.1) == TrainingConfig(order="usual", rate=0.2)
    ```
    """

    data: str = _field(
        "cifar10", "digits, cifar10, cifar100, imagenet2012, or a folder that holds train and val"
    )
    model: str | None = _field(
        None,
        "small, cnn6, resnet20 ... resnet164, vgg16, densenet40, resnet50-v1.5, resnet101-v1.5, or"
        " a network of keras.applications (by default resnet20, of image files resnet50-v1.5)",
    )
    order: str = _field(
        "relu-ic-conv",
        "what stands before what; ic is the paper's choice, usual the baseline",
        choices=(*ORDERS, *ALIASES),
    )
    rate: float = _field(0.05, "probability of the IC layers to drop a value", checked_rate)
    seed: int = _field(
        0, "what kernels, masks, and the order and augmentation of the images depend on", _seed
    )
    epochs: int = _field(
        200,
        "how often to go through the training images; schedules stretch with it",
        positive_int,
    )
    batch: int = _field(64, "how many images a step takes, on all replicas together", positive_int)
    train_size: int | None = _field(
        None, "train on the first N images alone (of a set in memory)", positive_int
    )
    image_size: int | None = _field(
        None, "resize the images to this many pixels a side (image files: 224)", positive_int
    )
    augment: bool | None = _field(
        None, "flip and crop the training images (by default all but the digits)", checked_bool
    )
    optimizer: str = _field(
        "adam", "the optimizer; sgd has a Nesterov momentum of 0.9", choices=("adam", "sgd")
    )
    learning_rate: float = _field(1e-3, "the highest learning rate of the schedule", positive_real)
    linear_scaling: bool = _field(
        False, "multiply the learning rate by batch / 256 (Goyal et al., 2017)", checked_bool
    )
    schedule: str = _field(
        "steps",
        "how the learning rate falls: to a tenth after 40, 60 and 80 %, by a cosine to 0, in one"
        " cycle, or not at all",
        choices=SCHEDULES,
    )
    warmup_epochs: int = _field(
        0, "epochs in which the learning rate rises from 0, before a cosine", natural_int
    )
    weight_decay: float = _field(
        1e-4, "factor of Keras's L2 penalty on every kernel, in the loss", natural_real
    )
    decoupled_weight_decay: float = _field(
        0.0, "share of each kernel that a step takes away, times the learning rate", natural_real
    )
    label_smoothing: float = _field(
        0.0, "share of the target that is spread over all classes", checked_share
    )
    ema: float = _field(
        0.0,
        "momentum of a moving average of the weights, which is validated and kept",
        checked_share,
    )
    accumulate: int = _field(
        1, "parts in which a replica's batch goes through the network", positive_int
    )
    synchronized: bool = _field(
        False, "normalize with the statistics of a batch over all replicas", checked_bool
    )
    momentum: float | None = _field(
        None, "momentum of the moving statistics (by default each network's own)", checked_share
    )
    dropout: float = _field(
        0.0, "rate of a Dropout after the ReLUs of an order without IC layers", checked_rate
    )
    per_channel: bool = _field(False, "drop whole channels of images", checked_bool)
    rate_schedule: str = _field(
        "constant",
        "how the rate of the IC layers changes over the epochs",
        choices=RATE_SCHEDULES,
    )
    rate_depth: str = _field(
        "uniform",
        "how the rate of the IC layers changes over the depth",
        choices=("uniform", "rising", "falling", "linear", "stages"),
    )
    rates: tuple[float, ...] | None = _field(
        None,
        "for a linear rate over the depth, the first and the last; for stages, one rate for each"
        " equal part of the depth, such as 0,0.05,0.1",
    )
    classifier_ic: bool = _field(True, "put an IC layer before the classifier", checked_bool)
    recalibrate: str = _field(
        "each",
        "when to re-estimate the moving statistics: never, at the end, or before each validation",
        choices=("off", "end", "each"),
    )
    validation: float = _field(
        0.0,
        "share of the training images to judge on in place of the test set",
        checked_share,
    )
    dtype: str = _field(
        "float32",
        "the dtype policy; auto is mixed_bfloat16 on accelerators, float32 on CPUs",
        choices=("float32", "mixed_bfloat16", "auto"),
    )

    def __post_init__(self):
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.metadata["choices"]:
                checked_choice(name, value, field.metadata["choices"])
            elif field.metadata["check"] and not (value is None and field.default is None):
                values[name] = field.metadata["check"](name, value)
        values["order"] = ALIASES.get(self.order, self.order)
        for name in ("data", "model"):
            if not isinstance(getattr(self, name), (str, type(None) if name == "model" else str)):
                raise ValueError(
                    f"`{name}` must be a string. Received: {name}={getattr(self, name)!r}"
                )
        if self.model is None:
            values["model"] = "resnet20" if self.is_in_memory else "resnet50-v1.5"
        if self.augment is None:
            values["augment"] = self.data != "digits"
        if self.image_size is None and not self.is_in_memory:
            values["image_size"] = 224
        values.update(self._checked_rates(ORDERS[values["order"]].has_ic))
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_together()

    def _checked_rates(self, has_ic: bool) -> dict[str, Any]:
        if not has_ic:
            return dict(OF_IC)
        if self.rates is not None or self.rate_depth in ("linear", "stages"):
            rates = _rates_of_depth(self.rates, self.rate_depth)
            return {"rates": rates, "rate": sum(rates) / len(rates)}
        if self.rate_depth != "uniform" and self.rate >= 0.5:
            raise ValueError(
                "`rate` must be below 0.5 where it rises or falls to twice itself. Received:"
                f" rate={self.rate}"
            )
        return {}

    def _check_together(self) -> None:
        if self.dropout and ORDERS[self.order].has_ic:
            raise ValueError(
                "`dropout` is for the orders without IC layers, which drop at `rate`. Received:"
                f" dropout={self.dropout} with order={self.order!r}"
            )
        if self.warmup_epochs and (self.schedule != "cosine" or self.warmup_epochs >= self.epochs):
            raise ValueError(
                "`warmup_epochs` is for the schedule cosine, and must be below `epochs`. Received:"
                f" warmup_epochs={self.warmup_epochs} with schedule={self.schedule!r} and"
                f" epochs={self.epochs}"
            )
        if not self.is_in_memory:
            for name, value in (("train_size", None), ("validation", 0.0), ("augment", True)):
                if getattr(self, name) != value:
                    raise ValueError(
                        f"`{name}` is for sets that fit into memory ({', '.join(IN_MEMORY)})."
                        f" Received: {name}={getattr(self, name)!r} with data={self.data!r}"
                    )
            if self.pixels < 32:
                raise ValueError(
                    "`image_size` must be an integer of 32 or more for image files. Received:"
                    f" image_size={self.image_size}"
                )

    @property
    def is_in_memory(self) -> bool:
        """Whether the images are arrays in memory; else they are files."""
        return self.data in IN_MEMORY

    @property
    def pixels(self) -> int:
        """The sides of an image of files."""
        assert self.image_size is not None  # set in `__post_init__` for files
        return self.image_size

    @property
    def scaled_learning_rate(self) -> float:
        """What the optimizer gets at the top of the schedule."""
        factor = self.batch / BASE_BATCH if self.linear_scaling else 1.0
        return self.learning_rate * factor

    @property
    def name(self) -> str:
        """A name for the run's folder, unique to the configuration: the main values, then all
        others that are not those of the data's preset.
        """
        from keras_ic.training.presets import preset_of

        data = self.data.rstrip("/").rpartition("/")[2]
        rate = [_short(self.rate)] if ORDERS[self.order].has_ic else []
        main = [data, str(self.model), self.order, *rate]
        main += [f"{self.epochs}epochs", f"seed{self.seed}"]
        usual = preset_of(self.data, order=self.order)
        shown = {"data", "model", "order", "rate", "epochs", "seed"}
        others = [field.name for field in dataclasses.fields(self) if field.name not in shown]
        differing = [name for name in others if getattr(self, name) != getattr(usual, name)]
        return "-".join([*main, *(f"{name}={getattr(self, name)}" for name in differing)])

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them; `TrainingConfig(**values)` gives an equal configuration."""
        return dataclasses.asdict(self)

    def batch_of_replica(self, replicas: int) -> int:
        """The per-replica batch size; an error if it is not the same for all, or not to be
        accumulated in equal parts.
        """
        unit = replicas * self.accumulate
        if self.batch % unit:
            near = max(round(self.batch / unit), 1) * unit
            raise ValueError(
                f"The batch must be a multiple of the replicas times `accumulate`, {replicas} x"
                f" {self.accumulate}; {near} would be. Received: batch={self.batch}"
            )
        return self.batch // replicas


def _short(rate: float) -> str:
    """A rate as text, with all the digits that tell it from others."""
    return f"{rate:g}" if float(f"{rate:g}") == rate else repr(rate)


def _rates_of_depth(rates: Any, rate_depth: str) -> tuple[float, ...]:
    if rate_depth not in ("linear", "stages"):
        raise ValueError(
            f'`rates` is for the depths "linear" and "stages". Received: rates={rates!r} with'
            f" rate_depth={rate_depth!r}"
        )
    wanted = "the first rate and the last" if rate_depth == "linear" else "one rate or more"
    count = len(rates) if isinstance(rates, (tuple, list)) else 0
    if not count or (rate_depth == "linear" and count != 2):
        raise ValueError(
            f"`rates` must be a tuple of {wanted} for the depth {rate_depth!r}. Received:"
            f" rates={rates!r}"
        )
    return tuple(checked_rate("rates", rate) for rate in rates)


def grid(preset: str | None = None, **values) -> list[TrainingConfig]:
    """All combinations of the given values, each once.

    Args:
        preset: Name of a preset for what is not given; see `keras_ic.training.preset`. Defaults to
            `None`: that of the data.
        **values: For each field of `TrainingConfig`, one value or a list of values; for `rates`, a
            list of tuples.

    Returns:
        List of `TrainingConfig`, with the seeds in the outermost loop, so that a grid that is
        stopped half-way has seen all its other values.

    Raises:
        ValueError: For a value that `TrainingConfig` refuses, or an unknown name.

    Example:

    ```python
    from keras_ic.training import grid

    runs = grid(order=["usual", "ic"], rate=[0.0, 0.05], seed=[0, 1], epochs=20)
    assert len(runs) == 6  # the baseline has no rate
    assert [run.seed for run in runs] == [0, 0, 0, 1, 1, 1]
    ```
    """
    from keras_ic.training.presets import preset_of

    known = [field.name for field in dataclasses.fields(TrainingConfig)]
    for name in values:
        checked_choice("the name of an option", name, known)
    lists = {
        name: list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        for name, value in values.items()
    }
    names = sorted(lists, key=lambda name: name != "seed")
    combinations = itertools.product(*(lists[name] for name in names))
    made = [dict(zip(names, combination, strict=True)) for combination in combinations]
    return list(
        dict.fromkeys(
            preset_of(each.pop("data", TrainingConfig.data), preset, **each) for each in made
        )
    )
