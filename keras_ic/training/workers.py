"""Who this process is among the workers of a training, and what it trains."""

import socket
from typing import Any

import keras
import numpy as np

from keras_ic import distribution
from keras_ic.distribution import jax_devices
from keras_ic.distribution.agreement import (
    broadcast,
    number_of_replicas,
    number_of_workers,
    worker_index,
)
from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets import Dataset, Shard
from keras_ic.training.networks import network
from keras_ic.training.optimizers import compile_for
from keras_ic.utils.lazy_imports import jax
from keras_ic.utils.lazy_imports import tensorflow as tf


class Workers:
    """This process among the workers.

    Args:
        config: The `TrainingConfig`.
        strategy: A `tf.distribute.Strategy`, or None for plain `fit` on one device. On JAX a
            distribution of `keras.distribution`, which is made Keras's; None for the one that is
            set already, if any.

    Raises:
        ValueError: If the batch cannot be shared out evenly.
        NotImplementedError: For `accumulate` on another backend than TensorFlow, or a strategy on
            torch.
    """

    def __init__(self, config: TrainingConfig, strategy: Any):
        backend = keras.backend.backend()
        if (backend == "torch" and strategy is not None) or (
            backend != "tensorflow" and config.accumulate > 1
        ):
            raise NotImplementedError(
                "`accumulate` needs the TensorFlow backend, and a strategy TensorFlow or JAX."
                f" Received: backend {backend!r} with accumulate={config.accumulate}"
            )
        if backend == "jax":
            strategy = _set_distribution(strategy)
        elif strategy is None and config.accumulate > 1:
            strategy = tf.distribute.get_strategy()
        self.config, self.strategy = config, strategy
        self.is_prepared = strategy is not None and backend == "tensorflow"
        self.replicas = number_of_replicas(strategy)
        self.workers, index = number_of_workers(strategy), worker_index(strategy)
        self.is_chief = index == 0
        self.shard = Shard(index, self.workers, self.replicas // self.workers)
        config.batch_of_replica(self.replicas)

    @property
    def place(self) -> dict[str, Any]:
        """What a record says of where the run takes place."""
        found = distribution.cluster() if self.workers > 1 else None
        return {
            "replicas": self.replicas,
            "workers": self.workers,
            "devices": {_kind_of_device(): _number_of_devices(self.strategy, self.replicas)},
            "hosts": [address.rpartition(":")[0] for address in found.addresses]
            if found
            else [socket.gethostname()],
        }

    def check(self, dataset: Dataset) -> None:
        """An error if the last batch of an epoch cannot be shared out among the replicas."""
        last = dataset.last_batch
        if last % self.replicas and not (self.is_prepared and last > self.replicas):
            wanted = "an image" if self.is_prepared else "equally many images"
            raise ValueError(
                f"The last batch of an epoch must have {wanted} for each replica; choose another"
                " `batch` or `train_size`, or one device by the strategy `one`. Received:"
                f" {last} images for {self.replicas} replicas"
            )

    def agree(self, values: list[int]) -> list[int]:
        """The chief's integers, on every worker."""
        return [int(value) for value in broadcast(self.strategy, [np.array(values)])[0]]

    def model(self, dataset: Dataset, jit_compile: bool | str) -> keras.Model:
        """The network of the configuration, compiled, with its optimizer built."""
        config = self.config

        def built():
            return network(config, dataset.shape, dataset.classes, dataset.is_standardized)

        steps = dataset.steps * config.epochs
        if not self.is_prepared:
            model = built()
            compile_for(model, config, steps, dataset.is_one_hot, jit_compile)
            return model
        with self.strategy.scope():
            model = distribution.prepare(built(), config.accumulate, jit_compile)
            compile_for(model, config, steps, dataset.is_one_hot)
        return model

    def distributed(self, make: Any) -> Any:
        """The data set that `make` gives for this worker's shard, handed to its replicas."""
        if self.strategy is None:
            return make(self.shard)
        if not self.is_prepared:
            return jax_devices.joined(make(self.shard), self.shard.replicas)

        def of_worker(context):
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = (
                tf.data.experimental.AutoShardPolicy.OFF
            )
            return make(self.shard).with_options(options)

        return self.strategy.distribute_datasets_from_function(of_worker)


def _set_distribution(given: Any) -> Any:
    """The distribution of a run on JAX."""
    strategy = keras.distribution.distribution() if given is None else given
    if strategy is None:
        return None
    keras.distribution.set_distribution(strategy)
    if jax.process_count() > 1:
        if isinstance(strategy, keras.distribution.ModelParallel):
            raise NotImplementedError(
                "A run in several processes needs all weights in each of them; take DataParallel."
                f" Received: {strategy!r}"
            )
        strategy.auto_shard_dataset = False  # each process reads its own part
    return strategy


def _kind_of_device() -> str:
    """The kind of the devices that train, as "cpu" or "NVIDIA H100 80GB HBM3"."""
    backend = keras.backend.backend()
    if backend == "jax":
        return jax.devices()[0].device_kind
    if backend == "torch":
        return keras.ops.zeros(()).device.type
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu")
    return keras.distribution.list_devices()[0].partition(":")[0]


def _number_of_devices(strategy: Any, replicas: int) -> int:
    return strategy.device_mesh.devices.size if hasattr(strategy, "device_mesh") else replicas
