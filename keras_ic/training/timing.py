"""How fast the training step is, without the images."""

import time
from typing import Any

import keras
import numpy as np

from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets import CLASSES, SHAPES, synthetic_images
from keras_ic.training.workers import Workers
from keras_ic.utils.validation import positive_int

WARM = 3  # steps that are not timed


def throughput(
    config: TrainingConfig, strategy: Any = None, steps: int = 30, jit_compile: bool | str = "auto"
) -> dict[str, float]:
    """Times the training step alone, on one and the same random images of the size of the data's.

    Args:
        config: The `TrainingConfig`; of image files, there are 1,000 classes.
        strategy: As of `run`. Defaults to `None`: plain `fit` on one device.
        steps: Integer above 0, how many are timed, after 3 that are not. Defaults to `30`.
        jit_compile: As of `run`. Defaults to `"auto"`.

    Returns:
        Dictionary with `step_seconds`, the median, and `images_per_second` on all replicas.

    Raises:
        ValueError: For an argument that the above excludes, or a batch that cannot be shared out
            evenly.

    Example:

    ```python
    from keras_ic.training import TrainingConfig, throughput

    config = TrainingConfig(data="digits", model="small", batch=4)
    assert throughput(config, steps=2)["images_per_second"] > 0
    ```
    """
    steps = positive_int("steps", steps)
    workers = Workers(config, strategy)
    synthetic: Any = _Synthetic(config)
    model = workers.model(synthetic, jit_compile)
    times: list[float] = []

    def note(batch, logs):
        float(next(iter(logs.values())))  # waits for the step
        times.append(time.perf_counter())

    model.fit(
        workers.distributed(synthetic.train),
        steps_per_epoch=steps + WARM,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)],
        verbose=0,
        shuffle=False,
    )
    seconds = float(np.median(np.diff(times[WARM - 1 :])))
    return {"step_seconds": seconds, "images_per_second": config.batch / seconds}


class _Synthetic:
    """Random images in the place of a data set."""

    is_one_hot, steps = True, 1

    def __init__(self, config):
        self.config, self.is_standardized = config, config.is_in_memory
        size = config.image_size
        self.shape = SHAPES[config.data] if config.is_in_memory else (size, size, 3)
        self.classes = CLASSES.get(config.data, 1000)

    def train(self, shard):
        """Batches of a replica."""
        batch = self.config.batch // shard.parts
        return synthetic_images(batch, self.shape, self.classes)
