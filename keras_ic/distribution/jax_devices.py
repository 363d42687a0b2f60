"""JAX: one program over all devices of all processes, by `keras.distribution`.

Batches, their statistics and the masks are those of the global array, whatever the devices. So
stock `fit` needs nothing but a distribution, and each process its part of every batch.
"""

import atexit
import contextlib
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_ic.distribution.cluster import Cluster, answer_chief, check_port, wait_for_peers
from keras_ic.utils.lazy_imports import jax, needed
from keras_ic.utils.lazy_imports import tensorflow as tf


def data_parallel(
    kind: str, find: Callable[[], Cluster | None], timeout: float, start_timeout: float
) -> Any:
    """The distribution that is set already, else all devices of all processes, which then are
    Keras's distribution; None for a single device, which needs none.
    """
    if kind not in ("auto", "one"):
        raise ValueError(
            "On JAX, 'auto' takes all devices, be they GPUs or a TPU's, of all processes; take it."
            f" Received: kind={kind!r}"
        )
    own = keras.distribution.distribution()
    if own is not None or kind == "one":
        return own
    found = find()
    if found is not None:
        _join(found, timeout, start_timeout)
    if jax.device_count() == 1:
        return None
    made = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(made)
    return made


def _join(found: Cluster, timeout: float, start_timeout: float) -> None:
    check_port(found)
    # JAX itself aborts a process whose peers do not come.
    wait_for_peers(found, start_timeout)
    answer_chief(found, start_timeout)
    jax.distributed.initialize(
        found.addresses[0],
        len(found.addresses),
        found.index,
        initialization_timeout=math.ceil(start_timeout),
        heartbeat_timeout_seconds=math.ceil(timeout),
        # JAX would take one GPU alone for a process that SLURM has started.
        cluster_detection_method="deactivate",
    )
    # Without it, the chief may be gone while the others still talk to it.
    atexit.register(jax.distributed.shutdown)


def leave(code: int) -> None:
    """Ends a process whose peer is gone, and which JAX would abort at its end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def joined(dataset: Any, replicas: int) -> Any:
    """A `tf.data.Dataset` of per-replica batches as one of the batches of this process."""

    def joint(value):
        flat = tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], 0))
        return tf.ensure_shape(flat, [None, *value.shape[2:]])

    def join(*values):
        return tuple(joint(value) for value in values)

    return dataset.batch(replicas, drop_remainder=True).map(join)


def is_chief() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


@contextlib.contextmanager
def of_chief_alone() -> Iterator[None]:
    """Lets the chief make variables by itself, as Keras does while it saves a model: those of a
    distribution are made by all processes at the same time.
    """
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def broadcast(values: list[np.ndarray]) -> list[np.ndarray]:
    """The chief's values, on every process, which all call it with arrays of the same shapes."""
    return [np.asarray(value) for value in _exchange("broadcast_one_to_all", values)]


def any_process(wanted: bool) -> bool:
    """Whether any of the processes wants it; all call it at the same time."""
    if jax.process_count() == 1:
        return wanted
    return bool(np.any(_exchange("process_allgather", np.array(wanted))))


def _exchange(name: str, values: Any) -> Any:
    return getattr(needed("jax.experimental.multihost_utils", "JAX", "jax"), name)(values)


@contextlib.contextmanager
def file_of_chief(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The path of a file with what the chief's file holds; without one, of none. All processes read
    it, since assigning a variable takes all of them.
    """
    if jax.process_count() == 1:
        yield path
        return
    content = path.read_bytes() if is_chief() and path.exists() else b""
    (size,) = broadcast([np.array(len(content))])
    (found,) = broadcast([np.frombuffer(content or bytes(int(size)), "uint8")])
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, path.name)
        if size:
            copy.write_bytes(found.tobytes())
        yield copy
