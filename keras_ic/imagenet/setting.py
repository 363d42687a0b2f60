"""Who a process is among the workers of a training, and what each of them begins with."""

from typing import Any

import keras

from keras_ic import distribution
from keras_ic.distribution.agreement import number_of_workers, worker_index
from keras_ic.imagenet import inputs
from keras_ic.imagenet.building import compile_for, network
from keras_ic.imagenet.recipe import Recipe


def check_backend() -> None:
    """Refuses every backend but TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(
            "This training needs the TensorFlow backend; on JAX, give `fit` a network and batches"
            " of keras_ic.imagenet under keras_ic.distribution.strategy(). Received: backend"
            f" {keras.backend.backend()!r}"
        )


def prepared(
    recipe: Recipe, strategy: Any, classes: int, steps: int, jit_compile: bool | str = "auto"
) -> keras.Model:
    """The network of a recipe, compiled and prepared for a strategy, with its optimizer built."""
    with strategy.scope():
        model = distribution.prepare(network(recipe, classes), recipe.accumulate, jit_compile)
        compile_for(model, recipe, steps)
        model.optimizer.build(model.trainable_variables)
    return model


class Setting:
    """Who this process is among the workers, and how much of a batch is its own."""

    def __init__(self, recipe, strategy, by):
        self.strategy, self.replicas, self.by = strategy, strategy.num_replicas_in_sync, by
        self.share = recipe.share(self.replicas)
        self.workers, self.worker = number_of_workers(strategy), worker_index(strategy)
        self.is_chief = self.worker == 0

    def distributed(self, make):
        """The dataset that `make` gives for this worker's part of a global batch, handed to its
        replicas.
        """
        import tensorflow as tf

        def of_worker(context):
            local = self.replicas // context.num_input_pipelines
            part = inputs.Part(context.input_pipeline_id, context.num_input_pipelines, self.by)
            dataset = make(part, self.share * local).rebatch(self.share, drop_remainder=True)
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = (
                tf.data.experimental.AutoShardPolicy.OFF
            )
            return dataset.with_options(options)

        return self.strategy.distribute_datasets_from_function(of_worker)
