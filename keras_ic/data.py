"""Image sets as arrays, and their augmentation as a `tf.data` pipeline in which an epoch depends on
nothing but the seed and its number.

Importing this module imports neither TensorFlow nor tensorflow-datasets nor scikit-learn; the
functions that need one import it.
"""

import os
from typing import Any

import numpy as np

from keras_ic.downloads import MissingDataError as MissingDataError
from keras_ic.downloads import from_tfds
from keras_ic.utils.lazy_imports import needed
from keras_ic.utils.validation import checked_bool, checked_choice, checked_int, checked_real

Images = tuple[np.ndarray, np.ndarray]

CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100}
SHAPES = {"digits": (8, 8, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
PADDING = 4  # pixels on each side, of which the crop takes as many away again


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
    from keras_ic import data

    (x_train, y_train), (x_test, y_test) = data.digits()
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
    from keras_ic import data

    try:
        (x_train, y_train), (x_test, y_test) = data.cifar10()
        assert x_train.shape == (50000, 32, 32, 3)
    except data.MissingDataError as error:
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
    from keras_ic import data

    try:
        (x_train, y_train), (x_test, y_test) = data.cifar100()
        assert y_train.max() == 99
    except data.MissingDataError as error:
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
    from keras_ic import data

    (x_train, y_train), (x_test, y_test) = data.load("digits")
    assert x_train.shape[1:] == data.SHAPES["digits"]
    ```
    """
    loaders = {"digits": lambda data_dir: digits(), "cifar10": cifar10, "cifar100": cifar100}
    return loaders[checked_choice("name", name, loaders)](data_dir)


def channel_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of every channel of a set of images.

    Args:
        x: Array of numbers `(n, height, width, channels)`, with at least one image.

    Returns:
        `(mean, std)`, float32 `(channels,)` each, in the unit of `x`. A channel that is constant
        has a standard deviation of 1 here, so that standardizing leaves it at 0.

    Raises:
        ValueError: If `x` has another rank or no image.

    Example:

    ```python
    import numpy as np
    from keras_ic import data

    mean, std = data.channel_statistics(np.array([0, 2, 4, 2]).reshape(2, 2, 1, 1))
    assert mean == 2 and std == np.float32(2**0.5)
    ```
    """
    x = _checked_images(x)
    # In small parts, which stay in the processor's cache as float64, and summed over images first,
    # which is fast.
    parts = [x[start : start + 100] for start in range(0, len(x), 100)]
    mean = sum(part.sum(0, dtype="float64") for part in parts).mean((0, 1)) / len(x)
    variance = sum(np.square(part - mean).sum(0) for part in parts).mean((0, 1)) / len(x)
    return mean.astype("float32"), np.sqrt(np.where(variance > 0, variance, 1)).astype("float32")


def training_dataset(
    x: np.ndarray,
    y: Any,
    batch_size: int,
    mean: Any,
    std: Any,
    augment: bool = True,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
) -> Any:
    """Batches of shuffled, augmented and standardized images for one epoch, or for several in a
    row.

    The order of the images of epoch `k`, and the flip and the crop of each, follow from `(seed, k)`
    and the image's index alone, through stateless random numbers: whether a run has come to epoch
    `k` in one go or was stopped and resumed there makes no difference.

    Augmentation is that of He et al. (2015): each image is flipped left to right with probability
    1/2, and shifted by -4 to 4 pixels along each side, with zeros, the mean colour after
    standardization, where it has none.

    Args:
        x: Array of numbers `(n, height, width, channels)`, as uint8 from 0 to 255.
        y: Array `(n, ...)` of what belongs to each image.
        batch_size: Integer above 0. The last batch of an epoch holds the rest.
        mean: Array `(channels,)` or number, in the unit of `x`, taken from the pixels.
        std: Array `(channels,)` or number above 0, in the unit of `x`, by which they are divided
            then.
        augment: Boolean, whether to flip and crop; else images are shuffled and standardized only.
            Defaults to `True`.
        seed: Integer of 0 or more. Defaults to `0`.
        epoch: Integer of 0 or more, the first epoch's number, counted from 0. Defaults to `0`.
        epochs: Integer above 0, how many epochs follow one another; give `fit` their length as
            `steps_per_epoch`. Defaults to `1`.

    Returns:
        A `tf.data.Dataset` of pairs `(images, y)`: float32 `(batch, height, width, channels)` and
        `(batch, ...)` in the dtype of `y`.

    Raises:
        ValueError: For an argument that the above excludes.
        ImportError: If TensorFlow is not installed.

    Example:

    ```python
    import numpy as np
    from keras_ic import data

    x, y = np.zeros((5, 32, 32, 3), "uint8"), np.arange(5)
    batches = list(data.training_dataset(x, y, 2, *data.channel_statistics(x), seed=1, epoch=7))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    ```
    """
    tf = needed("tensorflow", "tensorflow", "tensorflow")
    x, y, standardized = _checked_set(tf, x, y, mean, std)
    batch_size = checked_int(
        "batch_size", batch_size, "an integer above 0", lambda value: value > 0
    )
    augment = checked_bool("augment", augment)
    seed = checked_int("seed", seed, "an integer of 0 or more", lambda value: 0 <= value < 2**63)
    epoch = checked_int("epoch", epoch, "an integer of 0 or more", lambda value: value >= 0)
    epochs = checked_int("epochs", epochs, "an integer above 0", lambda value: value > 0)
    images = len(x)

    def draw(epoch, purpose, shape, **bounds):
        key = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), epoch]), purpose)
        return tf.random.stateless_uniform(shape, key, dtype=tf.int64, alg="philox", **bounds)

    def indices(epoch):
        # Sorting random numbers, since the order of tf.random's own shuffling may change from
        # version to version.
        order = tf.argsort(draw(epoch, 0, [images], minval=None, maxval=None), stable=True)
        flip = draw(epoch, 1, [images], minval=0, maxval=2)
        shift = draw(epoch, 2, [images, 2], minval=0, maxval=2 * PADDING + 1)
        return tf.data.Dataset.from_tensor_slices(
            (order, tf.gather(flip, order), tf.gather(shift, order))
        ).batch(batch_size)

    def load(index, flip, shift):
        batch = standardized(tf.gather(x, index))
        return (_flipped_and_shifted(tf, batch, flip, shift) if augment else batch), tf.gather(
            y, index
        )

    return (
        tf.data.Dataset.range(epoch, epoch + epochs)
        .flat_map(indices)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def test_dataset(x: np.ndarray, y: Any, batch_size: int, mean: Any, std: Any) -> Any:
    """Batches of standardized images in their order.

    Args:
        x: Array of numbers `(n, height, width, channels)`, as uint8 from 0 to 255.
        y: Array `(n, ...)` of what belongs to each image.
        batch_size: Integer above 0. The last batch holds the rest.
        mean: Array `(channels,)` or number, in the unit of `x`: that of the training images.
        std: Array `(channels,)` or number above 0, in the unit of `x`: that of the training images.

    Returns:
        A `tf.data.Dataset` of pairs `(images, y)`: float32 `(batch, height, width, channels)` and
        `(batch, ...)` in the dtype of `y`.

    Raises:
        ValueError: For an argument that the above excludes.
        ImportError: If TensorFlow is not installed.

    Example:

    ```python
    import numpy as np
    from keras_ic import data

    x, y = np.full((5, 8, 8, 1), 3, "uint8"), np.arange(5)
    images, labels = next(iter(data.test_dataset(x, y, 2, mean=1, std=2)))
    assert images.shape == (2, 8, 8, 1) and images.numpy().max() == 1
    ```
    """
    tf = needed("tensorflow", "tensorflow", "tensorflow")
    x, y, standardized = _checked_set(tf, x, y, mean, std)
    batch_size = checked_int(
        "batch_size", batch_size, "an integer above 0", lambda value: value > 0
    )
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    return dataset.map(
        lambda images, labels: (standardized(images), labels), num_parallel_calls=tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)


def _flipped_and_shifted(tf, images, flip, shift):
    """Flips image `i` where `flip[i]` is 1 and cuts its window at `shift[i]` out of its padded
    self; two gathers for a whole batch.
    """
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [PADDING, PADDING], [PADDING, PADDING], [0, 0]])
    rows = shift[:, :1] + tf.range(height, dtype=tf.int64)
    columns = shift[:, 1:] + tf.range(width, dtype=tf.int64)
    columns = tf.where(flip[:, tf.newaxis] == 1, tf.reverse(columns, [1]), columns)
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def _checked_set(tf, x, y, mean, std):
    """The set as tensors in the host's memory, and the function that standardizes a batch of its
    images.
    """
    x = _checked_images(x)
    y = np.asarray(y)
    if y.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"`y` must have one entry for each of the {len(x)} images. Received: y of shape"
            f" {y.shape}"
        )
    values = []
    for name, value in (("mean", mean), ("std", std)):
        value = _as_floats(name, value)
        if (
            value.shape not in ((), x.shape[-1:])
            or not np.isfinite(value).all()
            or (name == "std" and (value <= 0).any())
        ):
            wanted = "a finite number" + (" above 0" if name == "std" else "")
            raise ValueError(
                f"`{name}` must be {wanted}, or one for each of the {x.shape[-1]} channels."
                f" Received: {name}={value.tolist()}"
            )
        values.append(value)
    with tf.device("CPU:0"):
        x, y = tf.constant(x), tf.constant(y)
    return x, y, lambda images: (tf.cast(images, tf.float32) - values[0]) / values[1]


def _as_floats(name, value):
    try:
        return np.asarray(value, "float32")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a number, or one for each channel. Received: {name}={value!r}"
        ) from error


def _checked_images(x):
    x = np.asarray(x)
    if x.ndim != 4 or x.size == 0 or x.dtype.kind not in "uif":
        raise ValueError(
            f"`x` must be numbers of shape (images, height, width, channels). Received: {x.dtype}"
            f" of shape {x.shape}"
        )
    return x
