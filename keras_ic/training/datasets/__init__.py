"""Images to train on: sets in memory and image files, with one protocol."""

from typing import Any

from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets.array_batches import (
    channel_statistics,
    test_dataset,
    training_dataset,
)
from keras_ic.training.datasets.downloads import MissingDataError
from keras_ic.training.datasets.image_batches import (
    Part,
    synthetic_images,
    training_images,
    validation_images,
)
from keras_ic.training.datasets.image_files import ImageFiles
from keras_ic.training.datasets.image_records import DamagedDataError
from keras_ic.training.datasets.image_sources import Source, find_images
from keras_ic.training.datasets.in_memory import (
    CLASSES,
    SHAPES,
    InMemoryImages,
    cifar10,
    cifar100,
    digits,
    load,
)
from keras_ic.training.datasets.protocol import Dataset, Shard

__all__ = [
    "CLASSES",
    "SHAPES",
    "DamagedDataError",
    "Dataset",
    "ImageFiles",
    "InMemoryImages",
    "MissingDataError",
    "Part",
    "Shard",
    "Source",
    "channel_statistics",
    "cifar10",
    "cifar100",
    "digits",
    "find_images",
    "load",
    "make_dataset",
    "synthetic_images",
    "test_dataset",
    "training_dataset",
    "training_images",
    "validation_images",
]


def make_dataset(
    config: TrainingConfig,
    data_dir: Any = None,
    share_by: str = "auto",
    deterministic: bool = True,
) -> Dataset:
    """The images of a configuration, whatever their kind.

    Args:
        config: The `TrainingConfig`.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own,
            `~/tensorflow_datasets`.
        share_by: How image files are shared out among workers; see `Part`. Defaults to `"auto"`.
        deterministic: Boolean. False lets images of files come as they are ready. Defaults to
            `True`.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the images do not suit the configuration.
        MissingDataError: If they are not there.

    Example:

    ```python
    from keras_ic.training import TrainingConfig, datasets

    digits = datasets.make_dataset(TrainingConfig(data="digits", batch=32))
    assert digits.shape == (8, 8, 1) and digits.steps == 45
    ```
    """
    if config.is_in_memory:
        return InMemoryImages(config, data_dir)
    return ImageFiles(config, data_dir, share_by, deterministic)
