"""Image sets that fit into memory, as arrays and as the data of a training."""

import functools
import math
import os
from typing import Any

import numpy as np

from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets.array_batches import (
    channel_statistics,
    test_dataset,
    training_dataset,
)
from keras_ic.training.datasets.downloads import from_tfds
from keras_ic.training.datasets.protocol import Shard, calibration_steps
from keras_ic.utils.lazy_imports import needed
from keras_ic.utils.validation import checked_choice, checked_int, checked_real

Images = tuple[np.ndarray, np.ndarray]

CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100}
SHAPES = {"digits": (8, 8, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
TEST_BATCH = 250


def digits(seed: int = 0, test_fraction: float = 0.2) -> tuple[Images, Images]:
    """The 1,797 handwritten digits that come with scikit-learn, 8x8 pixels each, in a fixed split
    in which all classes have their share.

    Args:
        seed: Integer in `[0, 2**32)`, chooses the split. Defaults to `0`.
        test_fraction: Float above 0 and below 1, the share of each class in the test set, rounded
            to whole images, of which each set must get some. Defaults to `0.2`.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images, float32 `(n, 8, 8, 1)` from 0 to 1, and
        classes 0 to 9, int64 `(n,)`. With the defaults, `n` is 1,438 and 359.

    Raises:
        ValueError: For an argument that the above excludes.
        ImportError: If scikit-learn is not installed.

    Example:

    ```python
    from keras_ic.training import datasets

    (x_train, y_train), (x_test, y_test) = datasets.digits()
    assert x_train.shape[1:] == (8, 8, 1) and len(x_train) + len(x_test) == 1797
    ```

    Reference: Alpaydin and Kaynak, 1998, Optical recognition of handwritten digits, UCI machine
    learning repository.
    """
    seed = checked_int("seed", seed, "an integer in [0, 2**32)", lambda value: 0 <= value < 2**32)
    test_fraction = checked_real(
        "test_fraction", test_fraction, "a number above 0 and below 1", lambda value: 0 < value < 1
    )
    loaded = needed("sklearn.datasets", "scikit-learn", "data").load_digits()
    x = (loaded.images[..., np.newaxis] / 16).astype("float32")
    y = loaded.target.astype("int64")
    random = np.random.RandomState(seed)  # the one generator of numpy whose numbers never change
    members = [random.permutation(np.flatnonzero(y == label)) for label in range(CLASSES["digits"])]
    test = np.sort(
        np.concatenate([indices[: round(len(indices) * test_fraction)] for indices in members])
    )
    train = np.setdiff1d(np.arange(len(y)), test)
    if not len(train) or not len(test):
        raise ValueError(
            "`test_fraction` must leave images in both sets. Received:"
            f" test_fraction={test_fraction}"
        )
    return (x[train], y[train]), (x[test], y[test])


def cifar10(data_dir: str | os.PathLike | None = None) -> tuple[Images, Images]:
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes, read through
    tensorflow-datasets and downloaded if they are not there.

    Args:
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: the environment's
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images, uint8 `(n, 32, 32, 3)` from 0 to 255, and
        classes 0 to 9, int64 `(n,)`, always in the same order.

    Raises:
        MissingDataError: If it is neither there nor to be downloaded, or is damaged; in one line
            that says how to get it.
        ImportError: If tensorflow-datasets or TensorFlow is not installed.

    Example:

    ```python
    from keras_ic.training import datasets

    try:
        (x_train, y_train), (x_test, y_test) = datasets.cifar10()
        assert x_train.shape == (50000, 32, 32, 3)
    except datasets.MissingDataError as error:
        print(error)
    ```

    Reference: Krizhevsky, 2009, Learning multiple layers of features from tiny images.
    """
    return from_tfds("cifar10", data_dir)


def cifar100(data_dir: str | os.PathLike | None = None) -> tuple[Images, Images]:
    """CIFAR-100: 50,000 training and 10,000 test images of 100 classes (the fine ones). Everything
    else is as with `cifar10`.

    Args:
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: the environment's
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images, uint8 `(n, 32, 32, 3)` from 0 to 255, and
        classes 0 to 99, int64 `(n,)`, always in the same order.

    Raises:
        MissingDataError: If it is neither there nor to be downloaded, or is damaged; in one line
            that says how to get it.
        ImportError: If tensorflow-datasets or TensorFlow is not installed.

    Example:

    ```python
    from keras_ic.training import datasets

    try:
        (x_train, y_train), (x_test, y_test) = datasets.cifar100()
        assert y_train.max() == 99
    except datasets.MissingDataError as error:
        print(error)
    ```

    Reference: Krizhevsky, 2009, Learning multiple layers of features from tiny images.
    """
    return from_tfds("cifar100", data_dir)


def load(name: str, data_dir: str | os.PathLike | None = None) -> tuple[Images, Images]:
    """One of the image sets above, by its name.

    Args:
        name: `"digits"`, `"cifar10"` or `"cifar100"`.
        data_dir: Path of the folder of tensorflow-datasets, which the digits do not need. Defaults
            to `None`, as in `cifar10`.

    Returns:
        `((x_train, y_train), (x_test, y_test))`, as the function of that name.

    Raises:
        ValueError: For another name, with the nearest.
        MissingDataError, ImportError: As the function of that name.

    Example:

    ```python
    from keras_ic.training import datasets

    (x_train, y_train), (x_test, y_test) = datasets.load("digits")
    assert x_train.shape[1:] == datasets.SHAPES["digits"]
    ```
    """
    loaders = {"digits": lambda data_dir: digits(), "cifar10": cifar10, "cifar100": cifar100}
    return loaders[checked_choice("name", name, loaders)](data_dir)


class InMemoryImages:
    """The data of a training on a set in memory; see `Dataset`.

    Args:
        config: The `TrainingConfig`.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own.

    Raises:
        ValueError: If there are fewer images than `train_size`, or `validation` leaves none.
        MissingDataError: If the images are neither there nor to be had.
    """

    is_standardized = True

    def __init__(self, config: TrainingConfig, data_dir: Any = None):
        self.config = config
        (self.x, self.y), self.judged = images(config, data_dir)
        self.shape, self.classes = self.x.shape[1:], CLASSES[config.data]
        self.sizes = {"train": len(self.x), "validation": len(self.judged[0])}
        self.steps = math.ceil(len(self.x) / config.batch)
        self.last_batch = len(self.x) - (self.steps - 1) * config.batch
        self.calibration_steps = calibration_steps(len(self.x), TEST_BATCH)
        self.standardization = channel_statistics(self.x)
        self.is_one_hot = config.label_smoothing > 0

    def train(self, start_step: int, shard: Shard) -> Any:
        """Batches from a step on; the last of an epoch holds the rest of the images."""
        epoch, first = divmod(start_step, self.steps)
        return training_dataset(
            self.x,
            self._targets(self.y),
            self.config.batch,
            *self.standardization,
            augment=bool(self.config.augment),
            seed=self.config.seed,
            epoch=epoch,
            epochs=None,
            first_batch=first,
            shard=shard,
        )

    def validation(self, shard: Shard) -> Any:
        """Batches of all images to be judged on, in their order."""
        x, y = self.judged
        return test_dataset(x, self._targets(y), TEST_BATCH, *self.standardization, shard=shard)

    def validation_steps(self, shard: Shard) -> int:
        """The batches of `validation` for each replica."""
        batch = max(TEST_BATCH // shard.parts, 1) * shard.parts
        return math.ceil(self.sizes["validation"] / batch)

    def calibration(self) -> Any:
        """All training images in their order, as they are."""
        return test_dataset(self.x, self._targets(self.y), TEST_BATCH, *self.standardization)

    def failure(self, error: Exception) -> Exception:
        """The error itself."""
        return error

    def _targets(self, y):
        return np.eye(self.classes, dtype="float32")[y] if self.is_one_hot else y


def images(config: TrainingConfig, data_dir: Any = None) -> tuple[Images, Images]:
    """The images of a run, `((x, y), (x, y))`: those that it is trained on, and those that it is
    judged on.
    """
    (x, y), test = _loaded(config.data, data_dir)
    size = config.train_size
    if size is not None and size > len(x):
        raise ValueError(
            f"`train_size` must be at most {len(x)}, the number of training images. Received:"
            f" train_size={size}"
        )
    x, y = x[:size], y[:size]
    left_out = round(config.validation * len(x))
    if not config.validation:
        return (x, y), test
    order = np.random.RandomState(0).permutation(len(x))
    judged, kept = np.sort(order[:left_out]), np.sort(order[left_out:])
    if not len(judged) or not len(kept):
        raise ValueError(
            "`validation` must leave images to train on and images to judge on. Received:"
            f" validation={config.validation} of {len(x)} images"
        )
    return (x[kept], y[kept]), (x[judged], y[judged])


@functools.lru_cache(maxsize=1)
def _loaded(name, data_dir):
    """The arrays of an image set, kept for the next run of a grid or a search: CIFAR-10 takes
    seconds to be read.
    """
    return load(name, data_dir)
