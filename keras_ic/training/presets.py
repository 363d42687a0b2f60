"""Named sets of values of a training, each with its source."""

import dataclasses
from typing import Any

from keras_ic.training.config import IN_MEMORY, TrainingConfig
from keras_ic.utils.validation import checked_choice, did_you_mean

PRESETS: dict[str, dict[str, Any]] = {
    # Chen et al., 2019 (1905.05928), whose statistics are those that training leaves.
    "chen2019": {"recalibrate": "off"},
    # ResNet-50 in 90 epochs as Goyal et al., 2017 (1706.02677), with the label smoothing and the
    # cosine of He et al., 2018 (1812.01187).
    "imagenet": {
        "epochs": 90,
        "batch": 1024,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "linear_scaling": True,
        "schedule": "cosine",
        "warmup_epochs": 5,
        "label_smoothing": 0.1,
        "weight_decay": 5e-5,
        "dtype": "auto",
    },
    # A few classes of small images on a CPU, to see in minutes that everything works.
    "small": {
        "epochs": 12,
        "batch": 32,
        "image_size": 64,
        "optimizer": "sgd",
        "learning_rate": 0.4,
        "linear_scaling": True,
        "schedule": "cosine",
        "warmup_epochs": 1,
        "weight_decay": 5e-5,
    },
}


def preset(name: str, **changes) -> TrainingConfig:
    """A configuration by the name of its preset, with changes.

    Args:
        name: `"chen2019"` (the paper's recipe for CIFAR), `"imagenet"` (ResNet-50 in 90 epochs), or
            `"small"` (small images on a CPU).
        **changes: Fields of `TrainingConfig` that are to be other than the preset has them. Without
            `data`, it is `"cifar10"` for `"chen2019"`, else `"imagenet2012"`.

    Returns:
        The `TrainingConfig`. Fewer `epochs` than the preset's warm-up shorten the warm-up.

    Raises:
        ValueError: For another name, or a value that `TrainingConfig` refuses.

    Example:

    ```python
    from keras_ic import training

    assert training.preset("small", epochs=3).image_size == 64
    assert training.preset("imagenet", batch=512).scaled_learning_rate == 0.2
    ```
    """
    checked_choice("preset", name, PRESETS)
    changes.setdefault("data", "cifar10" if name == "chen2019" else "imagenet2012")
    return _with(PRESETS[name], changes)


def preset_of(data: str, name: str | None = None, **changes) -> TrainingConfig:
    """A configuration with the values of a preset; without a name, those that suit the data: the
    defaults of `TrainingConfig` for a set in memory, `"imagenet"` for image files.
    """
    if name is None and data in IN_MEMORY:
        return _with({}, {"data": data, **changes})
    return preset(name or "imagenet", data=data, **changes)


def _with(values: dict[str, Any], changes: dict[str, Any]) -> TrainingConfig:
    known = [field.name for field in dataclasses.fields(TrainingConfig)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(
            f"A training has no such option{did_you_mean(unknown[0], known)} Received:"
            f" {unknown[0]}={changes[unknown[0]]!r}"
        )
    warmup, epochs = values.get("warmup_epochs", 0), changes.get("epochs")
    if warmup and isinstance(epochs, int) and "warmup_epochs" not in changes:
        values = {**values, "warmup_epochs": min(warmup, max(epochs - 1, 0))}
    return TrainingConfig(**{**values, **changes})
