"""The strategy that the surroundings of a process call for."""

import math
import os
import re
from typing import Any

import keras

from keras_ic.distribution.cluster import Cluster, check_port, cluster, wait_for_peers
from keras_ic.distribution.jax_devices import data_parallel
from keras_ic.distribution.peers import peers_needed
from keras_ic.utils.lazy_imports import needed
from keras_ic.utils.lazy_imports import tensorflow as tf
from keras_ic.utils.validation import checked_choice, checked_real

KINDS = ("auto", "one", "mirrored", "multiworker", "tpu")


def strategy(kind: str = "auto", timeout: float = 60.0, start_timeout: float = 600.0) -> Any:
    """The distribution strategy for this process: the one that TF_CONFIG, SLURM or the devices call
    for, or the one named.

    Call it first, before TensorFlow or JAX has run anything: several workers find one another in
    it, and it returns when all of them are there.

    Args:
        kind: One of
            - `"auto"`: `"multiworker"` if TF_CONFIG or a SLURM step names several processes, else
              `"tpu"` if there is one, else `"mirrored"` if there are several GPUs, else `"one"`.
            - `"one"`: one device, without a strategy.
            - `"mirrored"`: a replica on each GPU of this machine; without GPUs, on each logical
              CPU.
            - `"multiworker"`: a replica on each GPU of each process of the cluster.
            - `"tpu"`: a replica on each core of the TPU, which the variable TPU_NAME names, else
              the local one.

            Defaults to `"auto"`.
        timeout: Float above 0, seconds after which a worker that does not answer counts as lost.
            Defaults to `60.0`.
        start_timeout: Float above 0, seconds that the workers may take to find one another.
            Defaults to `600.0`.

    Returns:
        On TensorFlow a `tf.distribute.Strategy`. On JAX, where `"auto"` and `"one"` alone are
        taken, the distribution of Keras: one that is set already is left as it is; else `"auto"`
        sets a `keras.distribution.DataParallel` over all devices of all processes. On one device it
        is None there.

    Raises:
        ValueError: If the name is another, or not one for JAX; the cluster's description is
            malformed, or missing for `"multiworker"`; the port of this process is in use; there is
            no TPU for `"tpu"`.
        LostPeerError: If the other workers are not there within `start_timeout`.
        NotImplementedError: On torch.

    Example:

    ```python
    import keras
    from keras_ic import distribution

    with distribution.strategy("one").scope():  # of tf.distribute
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    ```
    """
    checked_choice("kind", kind, KINDS)
    timeout = checked_real(
        "timeout", timeout, "a number of seconds above 0", lambda value: value > 0
    )
    start_timeout = checked_real(
        "start_timeout", start_timeout, "a number of seconds above 0", lambda value: value > 0
    )
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise NotImplementedError(
            "Strategies need the TensorFlow or the JAX backend; on torch, use torch's own DDP."
            f" Received: backend {backend!r}"
        )
    if backend == "jax":
        return data_parallel(kind, cluster, timeout, start_timeout)
    found = cluster() if kind in ("auto", "multiworker") else None
    if kind == "multiworker" and found is None:
        raise ValueError(
            "This strategy needs several processes, named by TF_CONFIG or by a SLURM step started"
            " with `srun`. Received: neither of them"
        )
    if found is not None:
        check_port(found)
        return _multiworker(found, timeout, start_timeout)
    if kind == "tpu" or (kind == "auto" and tf.config.list_physical_devices("TPU")):
        return _tpu()
    gpus = tf.config.list_logical_devices("GPU")
    if kind == "mirrored" or (kind == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        # Named, since MirroredStrategy would otherwise read TF_CONFIG.
        return tf.distribute.MirroredStrategy(
            [re.sub("^/device:", "", device.name) for device in devices]
        )
    return tf.distribute.get_strategy()


def _multiworker(found: Cluster, timeout: float, start_timeout: float) -> Any:
    wait_for_peers(found, start_timeout)
    # What MultiWorkerMirroredStrategy configures itself, but for the time-out, which it leaves at
    # minutes and has no argument for.
    eager = needed("tensorflow.python.eager.context", "tensorflow", "tensorflow")
    eager.context().configure_coordination_service(
        "standalone",
        f"/job:{next(iter(found.jobs))}/replica:0/task:0",
        heartbeat_timeout_in_ms=math.ceil(1000 * timeout),
        cluster_register_timeout_in_ms=math.ceil(1000 * start_timeout),
        coordinated_jobs=[
            eager.coordination_config_pb2.CoordinatedJob(name=name, num_tasks=len(jobs))
            for name, jobs in found.jobs.items()
        ],
    )
    kind, index = found.task
    gpus = len(tf.config.list_physical_devices("GPU"))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(found.jobs),
        task_type=kind,
        task_id=index,
        num_accelerators={"GPU": gpus} if gpus else {},
        rpc_layer="grpc",
    )
    with peers_needed(len(found.addresses)):
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def _tpu() -> Any:
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    # Of many kinds: no such name, no metadata server, no driver, held by another process.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"There is no TPU to be had ({reason}); check TPU_NAME and that no other process holds"
            f" it. Received: TPU {name!r}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)
