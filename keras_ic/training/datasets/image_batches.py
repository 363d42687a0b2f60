"""The images of files as batches for one worker, in an order that depends on nothing but the seed
and the number of the epoch.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from keras_ic.training.datasets import augment
from keras_ic.training.datasets.image_records import (
    GREY,
    Damages,
    decoded,
    reader,
)
from keras_ic.training.datasets.image_sources import Source
from keras_ic.utils.lazy_imports import tensorflow as tf

GRAPH_SEED = 87654321  # TensorFlow's own where none is set
SHUFFLED = 16384  # records among which the next is drawn; their bytes are in memory


@dataclasses.dataclass(frozen=True)
class Part:
    """The part of a worker: which worker of how many, and how the images are shared out.

    Attributes:
        worker: Integer from 0.
        workers: Integer above 0.
        by: `"files"`: each worker reads shards of its own, other ones in each epoch, so that every
            byte is read once. `"records"`: every worker reads all shards and decodes its part of
            every global batch; the global batches are then the same whatever the number of workers.
            `"auto"`: files, where every worker gets the same number of shards or at least 8, else
            records.

    Example:

    ```python
    from keras_ic.training.datasets import Part

    part = Part(worker=1, workers=4, by="records")  # the second of four workers
    ```
    """

    worker: int = 0
    workers: int = 1
    by: str = "auto"

    def of(self, source: Source) -> str:
        """`"files"` or `"records"`, for this source."""
        if self.by not in ("auto", "files", "records"):
            raise ValueError(
                f"Images are shared out by 'auto', 'files' or 'records'. Received: by={self.by!r}"
            )
        if source.labels is not None or self.workers == 1:
            return "records"  # a single image is a record: each worker reads only its own
        files = len(source.files)
        if self.by == "files" and files < self.workers:
            raise ValueError(
                "There are fewer files than workers; write more shards, or share out by records,"
                f" which has each worker read all of them. Received: {files} files for"
                f" {self.workers} workers"
            )
        if self.by != "auto":
            return self.by
        return (
            "files"
            if files >= self.workers and (files % self.workers == 0 or files // self.workers >= 8)
            else "records"
        )


def training_images(
    source: Source,
    batch: int,
    size: int,
    part: Part | None = None,
    seed: int = 0,
    begin: int = 0,
    deterministic: bool = True,
    damages: Damages | None = None,
    shuffled: int = SHUFFLED,
) -> Any:
    """Endless batches of one worker for training: shuffled, cropped at random, flipped.

    An epoch has `source.examples // (batch * workers)` batches. What is in batch `k` follows from
    the seed and `k`, so that a dataset which begins at `k` goes on like one that has come to it. An
    image that cannot be decoded is replaced by a grey one with weight 0, logged with its name, and
    counted; so are the records that a damaged shard has lost.

    Args:
        source: The `Source` of the images.
        batch: Integer above 0, images of this worker in a batch.
        size: Integer above 0, pixels of the sides of an image.
        part: The `Part` of this worker. Defaults to `None`: there is one worker.
        seed: Integer of 0 or more. Defaults to `0`.
        begin: Integer of 0 or more, the first batch, counted over the epochs. Defaults to `0`.
        deterministic: Boolean. False lets images come as they are ready; the order is then not the
            same again. Defaults to `True`.
        damages: `Damages` that count. Defaults to `None`: new ones.
        shuffled: Integer above 0, the records of shards in memory of which the next is drawn.
            Defaults to `16384`.

    Returns:
        A `tf.data.Dataset` of `(images, classes, weights)`: uint8 `(batch, size, size, 3)`, one-hot
        float32 `(batch, classes)`, float32 `(batch,)`.

    Raises:
        ValueError: If there are fewer images than in a global batch, or fewer files than workers
            where files are to be shared out.
        DamagedDataError: From the dataset, when more than 20 images and more than 0.1 % of all are
            damaged.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    import numpy as np
    from keras_ic.training import datasets

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / name, np.zeros((40, 40, 3)))

    images, classes, weights = next(
        iter(datasets.training_images(datasets.find_images(folder, "train"), batch=2, size=32))
    )
    assert images.shape == (2, 32, 32, 3) and classes.shape == (2, 2) and weights.numpy().all()
    ```
    """
    part, damages = part or Part(), damages or Damages(source.examples)
    steps = source.examples // (batch * part.workers)
    if steps == 0:
        raise ValueError(
            f"There are fewer images than in one batch of all workers. Received: {source.examples}"
            f" images, a batch of {batch * part.workers}"
        )
    by_files = part.of(source) == "files"
    records_of = reader(source, deterministic)

    def epoch(number):
        # Files in a new order; by files, a worker takes its share of that order.
        order = _permutation(len(source.files), seed, number)
        mine = order[part.worker :: part.workers] if by_files else order
        # The files of a worker may hold a few images fewer than the others': then it begins again.
        records = records_of(mine)
        if source.labels is None:
            # Of this function's graph alone. Without it, the order would depend on the seed that
            # `keras.utils.set_random_seed` may have set.
            tf.random.set_seed(GRAPH_SEED)
            records = records.shuffle(
                shuffled, seed=_seed(seed, number), reshuffle_each_iteration=False
            )
        places = steps * batch * (1 if by_files else part.workers)
        records = records.repeat().take(places).enumerate()
        if not by_files:
            records = (
                records.filter(lambda place, record: place // batch % part.workers == part.worker)
                if source.labels is None
                else _mine(records, part, batch)
            )
        first = tf.where(number == begin // steps, tf.constant(begin % steps * batch, tf.int64), 0)
        return records.skip(first).map(
            lambda place, record: (_key(seed, number, place, part, by_files), record)
        )

    def decode(key, record):
        return augment.random_part(record[0], size, key)

    examples = tf.data.Dataset.range(begin // steps, tf.int64.max).flat_map(epoch)
    return _batches(
        decoded(examples, decode, source, size, deterministic, damages),
        batch,
        len(source.classes),
    )


def validation_images(
    source: Source, batch: int, size: int, part: Part | None = None, damages: Damages | None = None
) -> Any:
    """The batches of one worker for testing, in a fixed order: the middle part of every image,
    every one in the share of exactly one worker.

    All workers have the same number of batches; what is missing in the last ones is filled up with
    grey images of weight 0. Metrics are exact with `weighted_metrics`.

    Args:
        source: The `Source` of the images.
        batch: Integer above 0, images of this worker in a batch.
        size: Integer above 0, pixels of the sides of an image.
        part: The `Part` of this worker. Defaults to `None`: there is one worker.
        damages: `Damages` that count. Defaults to `None`: new ones.

    Returns:
        A finite `tf.data.Dataset` as that of `training_images`.

    Raises:
        DamagedDataError: As `training_images`.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    import numpy as np
    from keras_ic.training import datasets

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / name, np.zeros((40, 40, 3)))

    source = datasets.find_images(folder, "validation")
    batches = list(datasets.validation_images(source, batch=4, size=32))
    # Two images, and two to fill up.
    assert len(batches) == 1 and batches[0][2].numpy().tolist() == [1, 1, 0, 0]
    ```
    """
    part, damages = part or Part(), damages or Damages(source.examples)
    files, records_of = tf.range(len(source.files), dtype=tf.int64), reader(source, True)
    by_files = part.of(source) == "files"
    mine = (
        records_of(files[part.worker :: part.workers])
        if by_files
        else records_of(files).shard(part.workers, part.worker)
    )
    examples = mine.map(lambda *record: (tf.zeros([2], tf.int64), record))
    images = decoded(
        examples,
        lambda key, record: augment.middle_part(record[0], size),
        source,
        size,
        True,
        damages,
    )
    nothing = tf.data.Dataset.from_tensors(
        (tf.fill([size, size, 3], GREY), tf.zeros([], tf.int64), tf.zeros([]))
    )
    filled = images.concatenate(nothing.repeat()).take(
        validation_steps(source, batch, part) * batch
    )
    return _batches(filled, batch, len(source.classes))


def validation_steps(source: Source, batch: int, part: Part) -> int:
    """The batches of `validation`, the same number for every worker of `part.workers`."""
    if part.of(source) == "files":
        largest = max(sum(source.counts[worker :: part.workers]) for worker in range(part.workers))
    else:
        largest = math.ceil(source.examples / part.workers)
    return math.ceil(largest / batch)


def synthetic_images(batch: int, shape: tuple[int, int, int], classes: int) -> Any:
    """Endless batches of one and the same random images, to time a training without its input.

    Args:
        batch: Integer above 0, images in a batch.
        shape: Tuple `(height, width, channels)` of an image.
        classes: Integer above 0.

    Returns:
        A `tf.data.Dataset` as that of `training_images`.

    Example:

    ```python
    from keras_ic.training import datasets

    images, classes, weights = next(iter(datasets.synthetic_images(2, (32, 32, 3), classes=10)))
    assert images.shape == (2, 32, 32, 3) and classes.shape == (2, 10)
    ```
    """
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (batch, *shape), "uint8")
    labels = np.eye(classes, dtype="float32")[draw.integers(0, classes, batch)]
    return tf.data.Dataset.from_tensors((images, labels, np.ones(batch, "float32"))).repeat()


def _seed(seed, number):
    return tf.cast(seed, tf.int64) * 1_000_003 + number


def _permutation(count, seed, number):
    # Sorting random numbers, since the order of tf.random's own shuffling may change from version
    # to version.
    key = tf.stack([tf.cast(seed, tf.int64), number])
    return tf.argsort(
        tf.random.stateless_uniform(
            [count], key, dtype=tf.int64, minval=None, maxval=None, alg="philox"
        ),
        stable=True,
    )


def _key(seed, number, place, part, by_files):
    """The seed of an image's crop and flip, its own in every epoch."""
    place = place * part.workers + part.worker if by_files else place
    return tf.stack([_seed(seed, number), place * 2])


def _mine(records, part, batch):
    """Of the places of a global batch those of this worker, without looking at the others."""
    return records.batch(batch).shard(part.workers, part.worker).unbatch()


def _batches(examples, batch, classes):
    examples = examples.batch(batch, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.map(
        lambda images, labels, weights: (images, tf.one_hot(labels, classes), weights)
    ).prefetch(tf.data.AUTOTUNE)
