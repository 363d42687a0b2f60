"""The records of image files, read and decoded; what is damaged is counted and passed over."""

import logging
import os
import threading

import numpy as np

from keras_ic.utils.lazy_imports import tensorflow as tf

LOG = logging.getLogger("keras_ic.training")
READERS = 16  # shards that are read at the same time
TOGETHER = 16  # images that a thread decodes at a time
LEAST_DAMAGED, SHARE_DAMAGED = 20, 0.001
GREY = np.uint8(118)  # the mean over the channels of ImageNet's mean colour


class DamagedDataError(ValueError):
    """More images are damaged than a training should pass over."""


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


def reader(source, deterministic):
    """A function of files, by their places, that gives `(content, class, name)` of each of their
    records; an empty content for one that is lost.
    """
    # Made here, once, so that a million names do not become a part of every graph that uses them.
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


def decoded(examples, decode, source, size, deterministic, damages):
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
