"""What every data set of a training gives, whether its images are arrays in memory or files."""

import dataclasses
from typing import Any, Protocol

CALIBRATION_SHARE, MOST_CALIBRATION = 5, 10_000


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of every global batch that one worker takes.

    Attributes:
        worker: Integer from 0, which worker this is.
        workers: Integer above 0, how many there are.
        replicas: Integer above 0, the replicas of this worker. A data set gives their per-replica
            batches one after another.

    Example:

    ```python
    from keras_ic.training.datasets import Shard

    shard = Shard(worker=1, workers=4, replicas=2)  # the second of four workers of two GPUs each
    assert shard.parts == 8
    ```
    """

    worker: int = 0
    workers: int = 1
    replicas: int = 1

    @property
    def parts(self) -> int:
        """The replicas of all workers."""
        return self.workers * self.replicas


def calibration_steps(images: int, batch: int) -> int:
    """The batches that `Dataset.calibration_steps` wants of so many training images."""
    return max(min(images // CALIBRATION_SHARE, MOST_CALIBRATION) // batch, 1)


class Dataset(Protocol):
    """The images of a training.

    Attributes:
        shape: Tuple `(height, width, channels)` of an image.
        classes: Integer, the number of classes.
        sizes: Dictionary of integers, the images of `"train"` and `"validation"`.
        steps: Integer, the steps of an epoch.
        last_batch: Integer, the images of the last step of an epoch, on all replicas together.
        calibration_steps: Integer, batches of `calibration` that re-estimate moving statistics well
            enough: a fifth of the training images, at most 10,000.
        is_standardized: Boolean, whether the images come standardized. Else they are pixels, uint8
            from 0 to 255, and the network standardizes them.
        is_one_hot: Boolean, whether the classes come as rows of a one-hot matrix. Else they are
            integers.
    """

    shape: tuple[int, int, int]
    classes: int
    sizes: dict[str, int]
    steps: int
    last_batch: int
    calibration_steps: int
    is_standardized: bool
    is_one_hot: bool

    def train(self, start_step: int, shard: Shard) -> Any:
        """Batches of a training from a step on, counted over the epochs; they depend on nothing but
        the seed and the step. The data set is endless.
        """

    def validation(self, shard: Shard) -> Any:
        """Batches of all images to be judged on, each once."""

    def validation_steps(self, shard: Shard) -> int:
        """The batches of `validation` for each replica."""

    def calibration(self) -> Any:
        """Global batches of training images, to estimate moving statistics from."""

    def failure(self, error: Exception) -> Exception:
        """What a training raises in place of an error that came from the images."""
