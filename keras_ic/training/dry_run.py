"""What a training will take, before it is begun."""

from typing import Any

import numpy as np

from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets import make_dataset
from keras_ic.training.networks import count_parameters, network

GIB = 2**30


def describe(config: TrainingConfig, replicas: int = 1, data_dir: Any = None) -> str:
    """Says what a training will take, and trains nothing.

    The memory is a high estimate: every layer's output, kept for the backward pass. XLA and
    the framework keep fewer of them, and need room of their own for convolutions.

    Args:
        config: The `TrainingConfig`.
        replicas: Integer above 0, how many devices share a batch. Defaults to `1`.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own.

    Returns:
        A table of a few lines.

    Raises:
        ValueError: If the batch cannot be shared out evenly, or the images do not suit.
        MissingDataError: If the images are not there.

    Example:

    ```python
    from keras_ic.training import TrainingConfig, describe

    text = describe(TrainingConfig(data="digits", model="small", epochs=2))
    assert "23 an epoch, 46 in 2 epochs" in text
    ```
    """
    batch = config.batch_of_replica(replicas)
    dataset = make_dataset(config, data_dir)
    model = network(config, dataset.shape, dataset.classes, dataset.is_standardized)
    trainable = count_parameters(model)
    moving = sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights)
    width = 2 if "bfloat16" in model.layers[-2].compute_dtype else 4
    # Outputs that are another layer's output in another shape take no memory; counting them keeps
    # the estimate on the safe side.
    values = sum(
        int(np.prod(layer.output.shape[1:]))
        for layer in model._flatten_layers()
        if hasattr(layer, "output") and not hasattr(layer, "layers")
    )
    copies = {"adam": 4, "sgd": 3}[config.optimizer] + (config.ema > 0)
    memory = {
        "weights": 4 * (copies * trainable + moving),
        "activations": values * width * (batch // config.accumulate),
        "input": 2 * batch * int(np.prod(dataset.shape)) * (4 if dataset.is_standardized else 1),
    }
    shown = ", ".join(f"{name} {value / GIB:.2f}" for name, value in memory.items())
    steps = dataset.steps
    rows = {
        "images": (
            f"{dataset.sizes['train']:,} to train with, {dataset.sizes['validation']:,} to judge"
            f" on, {dataset.classes:,} classes"
        ),
        "network": f"{config.model}, {config.order}, {trainable:,} parameters",
        "batch": f"{config.batch} on {replicas} replica(s), {batch} on each",
        "steps": f"{steps:,} an epoch, {steps * config.epochs:,} in {config.epochs} epochs",
        "learning rate": f"up to {config.scaled_learning_rate:g}, {config.schedule}",
        "memory": f"about {sum(memory.values()) / GIB:.2f} GiB a replica: {shown}",
    }
    return "\n".join(f"{name:14} {text}" for name, text in rows.items())
