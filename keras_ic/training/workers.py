"""Who this process is among the workers of a training, and what it trains."""

from typing import Any

import keras
import numpy as np

from keras_ic import distribution
from keras_ic.distribution.agreement import broadcast, number_of_workers, worker_index
from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets import Dataset, Shard
from keras_ic.training.networks import network
from keras_ic.training.optimizers import compile_for
from keras_ic.utils.lazy_imports import tensorflow as tf


class Workers:
    """This process among the workers.

    Args:
        config: The `TrainingConfig`.
        strategy: A `tf.distribute.Strategy`, or None for plain `fit` on one device.

    Raises:
        ValueError: If the batch cannot be shared out evenly.
        NotImplementedError: For a strategy, or `accumulate`, on another backend than TensorFlow.
    """

    def __init__(self, config: TrainingConfig, strategy: Any):
        backend = keras.backend.backend()
        if backend != "tensorflow" and (strategy is not None or config.accumulate > 1):
            raise NotImplementedError(
                "A strategy and `accumulate` need the TensorFlow backend; on JAX, a"
                " `keras.distribution` that is set before the run is used. Received: backend"
                f" {backend!r} with accumulate={config.accumulate}"
            )
        if strategy is None and config.accumulate > 1:
            strategy = tf.distribute.get_strategy()
        self.config, self.strategy = config, strategy
        several = strategy is not None
        self.replicas = strategy.num_replicas_in_sync if several else 1
        self.workers = number_of_workers(strategy) if several else 1
        index = worker_index(strategy) if several else 0
        self.is_chief = index == 0
        self.shard = Shard(index, self.workers, self.replicas // self.workers)
        config.batch_of_replica(self.replicas)

    def agree(self, values: list[int]) -> list[int]:
        """The chief's integers, on every worker."""
        if self.strategy is None:
            return values
        return [int(value) for value in broadcast(self.strategy, [np.array(values)])[0]]

    def model(self, dataset: Dataset, jit_compile: bool | str) -> keras.Model:
        """The network of the configuration, compiled, with its optimizer built."""
        config = self.config

        def built():
            return network(config, dataset.shape, dataset.classes, dataset.is_standardized)

        steps = dataset.steps * config.epochs
        if self.strategy is None:
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

        def of_worker(context):
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = (
                tf.data.experimental.AutoShardPolicy.OFF
            )
            return make(self.shard).with_options(options)

        return self.strategy.distribute_datasets_from_function(of_worker)
