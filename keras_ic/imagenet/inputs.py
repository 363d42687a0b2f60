"""The images of a split as batches for one worker, in an order that depends on nothing but the seed
and the number of the epoch.
"""

import dataclasses
import logging
import math
import os
import threading
from typing import Any

import numpy as np

from keras_ic.imagenet import decoding
from keras_ic.imagenet.sources import Source

LOG = logging.getLogger("keras_ic.imagenet")
READERS = 16  # shards that are read at the same time
SHUFFLED = 16384  # records among which the next is drawn; their bytes are in memory
TOGETHER = 16  # images that a thread decodes at a time
LEAST_DAMAGED, SHARE_DAMAGED = 20, 0.001


class DamagedDataError(ValueError):
    """More images are damaged than a training should pass over."""


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
    from keras_ic.imagenet import Part

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


class Damages:
    """Counts and names the damaged images that this process has met, and stops at too many."""

    def __init__(self, examples: int):
        self.limit = max(LEAST_DAMAGED, int(SHARE_DAMAGED * examples))
        self.names: set[str] = set()
        self._lock = threading.Lock()

    def note(self, name: bytes) -> np.bool_:
        """Notes one. The function that the pipeline calls."""
        with self._lock:
            text = name.decode(errors="replace")
            if text not in self.names:
                self.names.add(text)
                LOG.warning("damaged image, left out: %s (%d so far)", text, len(self.names))
            if len(self.names) > self.limit:
                raise DamagedDataError(
                    f"{len(self.names)} images are damaged, more than the {self.limit} that are"
                    f" passed over. Received: {text}"
                )
        return np.bool_(True)


def training(
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
    from keras_ic import imagenet

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / name, np.zeros((40, 40, 3)))

    images, classes, weights = next(
        iter(imagenet.training(imagenet.find(folder, "train"), batch=2, size=32))
    )
    assert images.shape == (2, 32, 32, 3) and classes.shape == (2, 2) and weights.numpy().all()
    ```
    """
    import tensorflow as tf

    part, damages = part or Part(), damages or Damages(source.examples)
    steps = source.examples // (batch * part.workers)
    if steps == 0:
        raise ValueError(
            f"There are fewer images than in one batch of all workers. Received: {source.examples}"
            f" images, a batch of {batch * part.workers}"
        )
    by_files = part.of(source) == "files"
    records_of = _reader(tf, source, deterministic)

    def epoch(number):
        # Files in a new order; by files, a worker takes its share of that order.
        order = _permutation(tf, len(source.files), seed, number)
        mine = order[part.worker :: part.workers] if by_files else order
        # The files of a worker may hold a few images fewer than the others': then it begins again.
        records = records_of(mine)
        if source.labels is None:
            records = records.shuffle(
                shuffled, seed=_seed(tf, seed, number), reshuffle_each_iteration=False
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
            lambda place, record: (_key(tf, seed, number, place, part, by_files), record)
        )

    def decode(key, record):
        return decoding.random_part(record[0], size, key)

    examples = tf.data.Dataset.range(begin // steps, tf.int64.max).flat_map(epoch)
    return _batches(
        tf,
        _decoded(tf, examples, decode, source, size, deterministic, damages),
        batch,
        len(source.classes),
    )


def validation(
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
        A finite `tf.data.Dataset` as that of `training`.

    Raises:
        DamagedDataError: As `training`.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    import numpy as np
    from keras_ic import imagenet

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / name, np.zeros((40, 40, 3)))

    batches = list(imagenet.validation(imagenet.find(folder, "validation"), batch=4, size=32))
    # Two images, and two to fill up.
    assert len(batches) == 1 and batches[0][2].numpy().tolist() == [1, 1, 0, 0]
    ```
    """
    import tensorflow as tf

    part, damages = part or Part(), damages or Damages(source.examples)
    files, records_of = tf.range(len(source.files), dtype=tf.int64), _reader(tf, source, True)
    by_files = part.of(source) == "files"
    mine = (
        records_of(files[part.worker :: part.workers])
        if by_files
        else records_of(files).shard(part.workers, part.worker)
    )
    examples = mine.map(lambda *record: (tf.zeros([2], tf.int64), record))
    decoded = _decoded(
        tf,
        examples,
        lambda key, record: decoding.middle_part(record[0], size),
        source,
        size,
        True,
        damages,
    )
    nothing = tf.data.Dataset.from_tensors(
        (tf.fill([size, size, 3], GREY), tf.zeros([], tf.int64), tf.zeros([]))
    )
    filled = decoded.concatenate(nothing.repeat()).take(
        validation_steps(source, batch, part) * batch
    )
    return _batches(tf, filled, batch, len(source.classes))


def validation_steps(source: Source, batch: int, part: Part) -> int:
    """The batches of `validation`, the same number for every worker of `part.workers`."""
    if part.of(source) == "files":
        largest = max(sum(source.counts[worker :: part.workers]) for worker in range(part.workers))
    else:
        largest = math.ceil(source.examples / part.workers)
    return math.ceil(largest / batch)


def synthetic(batch: int, size: int, classes: int) -> Any:
    """Endless batches of one and the same random images, to time a training without its input.

    Args:
        batch: Integer above 0, images in a batch.
        size: Integer above 0, pixels of the sides of an image.
        classes: Integer above 0.

    Returns:
        A `tf.data.Dataset` as that of `training`.

    Example:

    ```python
    from keras_ic import imagenet

    images, classes, weights = next(iter(imagenet.synthetic(batch=2, size=32, classes=10)))
    assert images.shape == (2, 32, 32, 3) and classes.shape == (2, 10)
    ```
    """
    import tensorflow as tf

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (batch, size, size, 3), "uint8")
    labels = np.eye(classes, dtype="float32")[draw.integers(0, classes, batch)]
    return tf.data.Dataset.from_tensors((images, labels, np.ones(batch, "float32"))).repeat()


GREY = np.uint8(118)  # the mean over the channels of ImageNet's mean colour


def _seed(tf, seed, number):
    return tf.cast(seed, tf.int64) * 1_000_003 + number


def _permutation(tf, count, seed, number):
    # Sorting random numbers, since the order of tf.random's own shuffling may change from version
    # to version.
    key = tf.stack([tf.cast(seed, tf.int64), number])
    return tf.argsort(
        tf.random.stateless_uniform(
            [count], key, dtype=tf.int64, minval=None, maxval=None, alg="philox"
        ),
        stable=True,
    )


def _key(tf, seed, number, place, part, by_files):
    """The seed of an image's crop and flip, its own in every epoch."""
    place = place * part.workers + part.worker if by_files else place
    return tf.stack([_seed(tf, seed, number), place * 2])


def _mine(records, part, batch):
    """Of the places of a global batch those of this worker, without looking at the others."""
    return records.batch(batch).shard(part.workers, part.worker).unbatch()


def _reader(tf, source, deterministic):
    """A function of files, by their places, that gives `(content, class, name)` of each of their
    records; an empty content for one that is lost.
    """
    # Made here, once, lest a million names become a part of every graph that uses them.
    paths, counts = tf.constant(source.files), tf.constant(source.counts, tf.int64)
    if source.labels is not None:
        labels = tf.constant(source.labels, tf.int64)

        def single(files):
            # The content is read where it is decoded, by as many threads.
            return tf.data.Dataset.from_tensor_slices(files).map(
                lambda index: (tf.constant(b""), tf.gather(labels, index), tf.gather(paths, index))
            )

        return single
    image, label, first = source.features
    wanted = {
        image: tf.io.FixedLenFeature([], tf.string, ""),
        label: tf.io.FixedLenFeature([], tf.int64, first),
    }

    def shard(index):
        path, count = tf.gather(paths, index), tf.gather(counts, index)
        # Where a shard is damaged TensorFlow's reader gives up the rest of it.
        found = (
            tf.data.TFRecordDataset(path, buffer_size=1 << 20)
            .ignore_errors()
            .concatenate(tf.data.Dataset.from_tensors("").repeat())
            .take(count)
        )
        return found.enumerate().map(
            lambda place, record: (
                record,
                tf.strings.join([path, tf.strings.as_string(place)], ", record "),
            )
        )

    def split(record, name):
        parsed = tf.io.parse_single_example(record, wanted)
        return parsed[image], parsed[label] - first, name

    def records(files):
        readers = min(READERS, len(source.files))
        found = tf.data.Dataset.from_tensor_slices(files)
        found = found.interleave(
            shard,
            cycle_length=readers,
            block_length=1,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=deterministic,
        )
        return found.map(split)

    return records


def _decoded(tf, examples, decode, source, size, deterministic, damages):
    """`(image, class, weight)` of every example; grey and of weight 0 if it cannot be decoded.

    TensorFlow can pass over an error in a dataset, but not say where it was. So some examples make
    a small dataset of their own: if one of them fails, it comes out empty, and they are tried once
    more, one by one.
    """

    def good(key, content, label, name):
        content = tf.io.read_file(name) if source.labels is not None else content
        image = tf.ensure_shape(decode(key, (content, label, name)), [size, size, 3])
        # A class that there is not would be a row of zeros, which costs nothing and is never right.
        with tf.control_dependencies(
            [
                tf.debugging.Assert(
                    (label >= 0) & (label < len(source.classes)), ["no such class", label]
                )
            ]
        ):
            image = tf.identity(image)
        return image, label, tf.ones([])

    def bad(key, content, label, name):
        noted = tf.numpy_function(damages.note, [name], tf.bool, stateful=True)
        with tf.control_dependencies([noted]):
            return tf.fill([size, size, 3], GREY), tf.identity(label), tf.zeros([])

    def one(*example):
        alone = tf.data.Dataset.from_tensors(example)
        return alone.map(good).ignore_errors().concatenate(alone.map(bad)).take(1)

    def some(key, record):
        together = tf.data.Dataset.from_tensor_slices((key, *record))
        count = tf.shape(key, out_type=tf.int64)[0]
        fast = together.map(good).batch(count, drop_remainder=True).ignore_errors()
        return fast.concatenate(together.flat_map(one).batch(count, drop_remainder=True)).take(1)

    workers = max(2 * (os.cpu_count() or 1), 4)
    found = examples.batch(TOGETHER).interleave(
        some, workers, 1, num_parallel_calls=workers, deterministic=deterministic
    )
    return found.unbatch()


def _batches(tf, examples, batch, classes):
    examples = examples.batch(batch, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.map(
        lambda images, labels, weights: (images, tf.one_hot(labels, classes), weights)
    ).prefetch(tf.data.AUTOTUNE)
