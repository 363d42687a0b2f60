"""Batches of arrays of images as a `tf.data` pipeline in which an epoch depends on nothing but the
seed and its number.
"""

from typing import Any

import numpy as np

from keras_ic.training.datasets import augment as augmentation
from keras_ic.training.datasets.protocol import Shard
from keras_ic.utils.lazy_imports import tensorflow as tf
from keras_ic.utils.validation import checked_bool, checked_int, natural_int, positive_int


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
    from keras_ic.training import datasets

    mean, std = datasets.channel_statistics(np.array([0, 2, 4, 2]).reshape(2, 2, 1, 1))
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
    epochs: int | None = 1,
    first_batch: int = 0,
    shard: Shard | None = None,
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
        epochs: Integer above 0, how many epochs follow one another, or None for an endless data
            set; give `fit` their length as `steps_per_epoch`. Defaults to `1`.
        first_batch: Integer of 0 or more, the batch of the first epoch to begin at. Defaults to
            `0`.
        shard: The `Shard` of this worker, which gets the per-replica batches of each of its
            replicas; a last batch is shared out evenly. Defaults to `None`: whole batches.

    Returns:
        A `tf.data.Dataset` of pairs `(images, y)`: float32 `(batch, height, width, channels)` and
        `(batch, ...)` in the dtype of `y`.

    Raises:
        ValueError: For an argument that the above excludes.
        ImportError: If TensorFlow is not installed.

    Example:

    ```python
    import numpy as np
    from keras_ic.training import datasets

    x, y = np.zeros((5, 32, 32, 3), "uint8"), np.arange(5)
    statistics = datasets.channel_statistics(x)
    batches = list(datasets.training_dataset(x, y, 2, *statistics, seed=1, epoch=7))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    ```
    """
    x, y, standardized = _checked_set(x, y, mean, std)
    batch_size = positive_int("batch_size", batch_size)
    augment = checked_bool("augment", augment)
    seed = checked_int("seed", seed, "an integer of 0 or more", lambda value: 0 <= value < 2**63)
    epoch, first_batch = natural_int("epoch", epoch), natural_int("first_batch", first_batch)
    end = tf.int64.max if epochs is None else epoch + positive_int("epochs", epochs)
    shard = shard or Shard()
    images = len(x)
    parts = -(-images // batch_size) * shard.replicas

    def draw(epoch, purpose, shape, **bounds):
        key = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), epoch]), purpose)
        return tf.random.stateless_uniform(shape, key, dtype=tf.int64, alg="philox", **bounds)

    def indices(number):
        # Sorting random numbers, since the order of tf.random's own shuffling may change from
        # version to version.
        order = tf.argsort(draw(number, 0, [images], minval=None, maxval=None), stable=True)
        flip = tf.gather(draw(number, 1, [images], minval=0, maxval=2), order)
        shift = draw(number, 2, [images, 2], minval=0, maxval=2 * augmentation.PADDING + 1)
        shift = tf.gather(shift, order)

        def of_replica(part):
            step, replica = part // shard.replicas, part % shard.replicas
            begin, place = step * batch_size, shard.worker * shard.replicas + replica
            size = tf.minimum(tf.constant(batch_size, tf.int64), images - begin)
            own = slice(
                begin + size * place // shard.parts, begin + size * (place + 1) // shard.parts
            )
            return order[own], flip[own], shift[own]

        first = tf.where(number == epoch, tf.constant(first_batch * shard.replicas, tf.int64), 0)
        return tf.data.Dataset.range(first, parts).map(of_replica)

    def load(index, flip, shift):
        batch = standardized(tf.gather(x, index))
        if augment:
            batch = augmentation.flipped_and_shifted(batch, flip, shift)
        return batch, tf.gather(y, index)

    return (
        tf.data.Dataset.range(epoch, end)
        .flat_map(indices)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def test_dataset(
    x: np.ndarray, y: Any, batch_size: int, mean: Any, std: Any, shard: Shard | None = None
) -> Any:
    """Batches of standardized images in their order.

    Args:
        x: Array of numbers `(n, height, width, channels)`, as uint8 from 0 to 255.
        y: Array `(n, ...)` of what belongs to each image.
        batch_size: Integer above 0. The last batch holds the rest.
        mean: Array `(channels,)` or number, in the unit of `x`: that of the training images.
        std: Array `(channels,)` or number above 0, in the unit of `x`: that of the training images.
        shard: The `Shard` of this worker, which gets the per-replica batches of each of its
            replicas, all of one size, with weights: the last are filled up with images of weight 0.
            Defaults to `None`: whole batches without weights.

    Returns:
        A `tf.data.Dataset` of pairs `(images, y)`: float32 `(batch, height, width, channels)` and
        `(batch, ...)` in the dtype of `y`; for a shard of several parts of triples
        `(images, y, weights)`, the last float32 `(batch,)`.

    Raises:
        ValueError: For an argument that the above excludes.
        ImportError: If TensorFlow is not installed.

    Example:

    ```python
    import numpy as np
    from keras_ic.training import datasets

    x, y = np.full((5, 8, 8, 1), 3, "uint8"), np.arange(5)
    images, labels = next(iter(datasets.test_dataset(x, y, 2, mean=1, std=2)))
    assert images.shape == (2, 8, 8, 1) and images.numpy().max() == 1
    ```
    """
    x, y, standardized = _checked_set(x, y, mean, std)
    batch_size = positive_int("batch_size", batch_size)
    if shard is None or shard.parts == 1:
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
        return dataset.map(
            lambda images, labels: (standardized(images), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).prefetch(tf.data.AUTOTUNE)
    size, count = max(batch_size // shard.parts, 1), len(x)

    def of_replica(part):
        step, replica = part // shard.replicas, part % shard.replicas
        begin = (step * shard.parts + shard.worker * shard.replicas + replica) * size
        places = tf.ensure_shape(tf.range(begin, begin + size), [size])
        index = tf.minimum(places, count - 1)
        weights = tf.cast(places < count, tf.float32)
        return standardized(tf.gather(x, index)), tf.gather(y, index), weights

    steps = -(-count // (size * shard.parts))
    return (
        tf.data.Dataset.range(steps * shard.replicas)
        .map(of_replica, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _checked_set(x, y, mean, std):
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
