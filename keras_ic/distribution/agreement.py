"""The workers of a strategy, and what the chief broadcasts to them."""

import functools
from typing import Any

import keras
import numpy as np

from keras_ic.distribution.peers import peers_needed
from keras_ic.utils.lazy_imports import tensorflow as tf


def number_of_workers(strategy: Any) -> int:
    """The processes of a tf.distribute strategy. (The hosts of a TPU are none: one process drives
    them all.)
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    spec = strategy.cluster_resolver.cluster_spec().as_dict()
    return max(sum(len(spec.get(job, ())) for job in ("chief", "worker")), 1)


def worker_index(strategy: Any) -> int:
    """The place of this process among the workers; the chief's is 0."""
    if number_of_workers(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)


def broadcast(strategy: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    """The chief's values, on every worker. All call it at the same time, each with arrays of the
    same shapes and types.

    Floats travel as float32 (float64 as such), all else as int64; every bit arrives, since what the
    others add is zero.
    """
    if number_of_workers(strategy) == 1 or not values:
        return values
    arrived: list[Any] = [None] * len(values)
    kinds = [
        (
            "int64"
            if value.dtype.kind in "iub"
            else "float64"
            if value.dtype == np.float64
            else "float32"
        )
        for value in values
    ]

    for kind in sorted(set(kinds)):
        places = [place for place, value in enumerate(kinds) if value == kind]
        packed = np.concatenate([values[place].astype(kind).ravel() for place in places])
        # Always, since TensorFlow would trace it anew for another context.
        with peers_needed(number_of_workers(strategy)), strategy.scope():
            received = strategy.experimental_local_results(
                _exchange(strategy, kind)(tf.constant(packed))
            )[0].numpy()
        ends = np.cumsum([values[place].size for place in places])
        for place, part in zip(places, np.split(received, ends[:-1]), strict=True):
            arrived[place] = part.reshape(values[place].shape).astype(values[place].dtype)
    return arrived


@functools.lru_cache(maxsize=4)
def _exchange(strategy, kind):
    """One function for arrays of any length, so that it is traced once."""

    def give(packed):
        context = tf.distribute.get_replica_context()
        mine = tf.equal(context.replica_id_in_sync_group, 0)
        return context.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.where(mine, packed, tf.zeros_like(packed))
        )

    return tf.function(
        lambda packed: strategy.run(give, args=(packed,)),
        input_signature=[tf.TensorSpec([None], kind)],
        autograph=False,
    )


def broadcast_variables(strategy: Any, variables: list) -> None:
    """Gives every worker the chief's values of the variables."""
    if number_of_workers(strategy) > 1:
        values = broadcast(
            strategy, [keras.ops.convert_to_numpy(variable) for variable in variables]
        )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
