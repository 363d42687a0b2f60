"""The workers of a strategy, and what the chief broadcasts to them."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_ic.distribution import jax_devices
from keras_ic.distribution.peers import peers_needed
from keras_ic.utils.lazy_imports import jax
from keras_ic.utils.lazy_imports import tensorflow as tf


def number_of_replicas(strategy: Any) -> int:
    """The parts that a batch is shared out in; None is one."""
    if strategy is None:
        return 1
    if keras.backend.backend() == "jax":
        return strategy.num_model_replicas
    return strategy.num_replicas_in_sync


def number_of_workers(strategy: Any) -> int:
    """The processes of a strategy; None is one. (The hosts of a TPU of tf.distribute are none: one
    process drives them all.)
    """
    if strategy is None:
        return 1
    if keras.backend.backend() == "jax":
        return jax.process_count()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    spec = strategy.cluster_resolver.cluster_spec().as_dict()
    return max(sum(len(spec.get(job, ())) for job in ("chief", "worker")), 1)


def worker_index(strategy: Any) -> int:
    """The place of this process among the workers; the chief's is 0."""
    if number_of_workers(strategy) == 1:
        return 0
    if keras.backend.backend() == "jax":
        return jax.process_index()
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
    if keras.backend.backend() == "jax":
        return jax_devices.broadcast(values)
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
        # Always, since TensorFlow would retrace it in another context.
        with peers_needed(number_of_workers(strategy)), strategy.scope():
            received = strategy.experimental_local_results(
                _exchange(strategy, kind)(tf.constant(packed))
            )[0].numpy()
        ends: np.ndarray = np.cumsum([values[place].size for place in places])
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


def ask_chief(strategy: Any, ask: Callable[[], list[int]], count: int) -> list[int]:
    """What a function of the chief alone gives, on every worker; what it raises is an error on all.

    Args:
        strategy: The strategy of the workers, all of which call this at the same time.
        ask: Callable that the chief calls, and that returns `count` integers.
        count: Integer, how many they are.

    Raises:
        ValueError: In one line, if the function raises an error of any kind.
    """
    problem, values = "", [0] * count
    if worker_index(strategy) == 0:
        try:
            values = ask()
        # Whatever it is, the workers that wait for the chief have to be told.
        except Exception as error:
            problem = " ".join(str(error).split()) or type(error).__name__
    failed, *values = broadcast(strategy, [np.array([bool(problem), *values])])[0].tolist()
    if failed:
        raise ValueError(problem or "The chief has failed; its message says why.")
    return values


def broadcast_variables(strategy: Any, variables: list) -> None:
    """Gives every worker the chief's values of the variables."""
    if number_of_workers(strategy) > 1:
        values = broadcast(
            strategy, [keras.ops.convert_to_numpy(variable) for variable in variables]
        )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
