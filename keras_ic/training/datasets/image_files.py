"""Image files as the data of a training: tensorflow-datasets, TFRecord shards, or folders."""

from typing import Any

from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets.image_batches import (
    Part,
    training_images,
    validation_images,
    validation_steps,
)
from keras_ic.training.datasets.image_records import LOG, DamagedDataError, Damages
from keras_ic.training.datasets.image_sources import find_images
from keras_ic.training.datasets.protocol import Shard, calibration_steps

CALIBRATION_SEED = 2**20  # none of a training's, which are below 2**19
CALIBRATION_BATCH = 256  # at most, since one device takes it whole


class ImageFiles:
    """The data of a training on image files; see `Dataset`.

    Args:
        config: The `TrainingConfig`.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own.
        share_by: How images are shared out among workers; see `Part`. Defaults to `"auto"`.
        deterministic: Boolean. False lets images come as they are ready: somewhat faster, and never
            the same again. Defaults to `True`.

    Raises:
        ValueError: If there are fewer images than in one batch, or the splits differ in classes.
        MissingDataError: If the images or one of the splits are not there.
    """

    is_standardized, is_one_hot = False, True

    def __init__(
        self,
        config: TrainingConfig,
        data_dir: Any = None,
        share_by: str = "auto",
        deterministic: bool = True,
    ):
        self.config, self.share_by, self.deterministic = config, share_by, deterministic
        self.last_batch = config.batch
        self.sources = {
            split: find_images(config.data, split, data_dir) for split in ("train", "validation")
        }
        self.sizes = {split: source.examples for split, source in self.sources.items()}
        train, test = (source.classes for source in self.sources.values())
        if train != test:
            odd = sorted(set(train) ^ set(test))
            raise ValueError(
                f"The two splits must have the same classes. Received: {len(train)} and"
                f" {len(test)}, {', '.join(odd[:3])} in one alone"
            )
        self.classes = len(train)
        self.shape = (config.pixels, config.pixels, 3)
        self.steps = self.sizes["train"] // config.batch
        if not self.steps:
            raise ValueError(
                f"There are fewer images than in one batch. Received: {self.sizes['train']} images,"
                f" batch={config.batch}"
            )
        self.calibration_batch = min(config.batch, CALIBRATION_BATCH)
        self.calibration_steps = calibration_steps(self.sizes["train"], self.calibration_batch)
        self.damages = Damages(sum(self.sizes.values()))

    def train(self, start_step: int, shard: Shard) -> Any:
        """Batches from a step on; images that do not fill a batch are left out of an epoch."""
        for source in self.sources.values():
            for path in source.cut_off:
                LOG.warning("shard cut off within a record, its last images are left out: %s", path)
        return _per_replica(
            training_images(
                self.sources["train"],
                self._batch(shard),
                self.config.pixels,
                self._part(shard),
                self.config.seed,
                start_step,
                self.deterministic,
                self.damages,
            ),
            shard,
        )

    def validation(self, shard: Shard) -> Any:
        """Batches of all images to be judged on, filled up with images of weight 0."""
        return _per_replica(
            validation_images(
                self.sources["validation"],
                self._batch(shard),
                self.config.pixels,
                self._part(shard),
                self.damages,
            ),
            shard,
        )

    def validation_steps(self, shard: Shard) -> int:
        """The batches of `validation` for each replica."""
        return validation_steps(self.sources["validation"], self._batch(shard), self._part(shard))

    def calibration(self) -> Any:
        """Training images as they are trained on, in an order of their own. They are the same on
        every worker, and each time.
        """
        batch = self.calibration_batch
        found = training_images(
            self.sources["train"],
            batch,
            self.config.pixels,
            seed=CALIBRATION_SEED,
            damages=self.damages,
            shuffled=batch,
        )
        return found.take(self.sizes["train"] // batch)

    def failure(self, error: Exception) -> Exception:
        """An error of its own, if too many images are damaged. Through a data set, it comes as one
        of TensorFlow's.
        """
        if len(self.damages.names) <= self.damages.limit:
            return error
        return DamagedDataError(
            f"{len(self.damages.names)} images are damaged, more than the {self.damages.limit} that"
            " are passed over; repair them. Received:"
            f" {', '.join(sorted(self.damages.names)[:3])}, ..."
        )

    def _batch(self, shard):
        return self.config.batch // shard.workers

    def _part(self, shard):
        return Part(shard.worker, shard.workers, self.share_by)


def _per_replica(dataset, shard):
    if shard.replicas == 1:
        return dataset
    size = dataset.element_spec[0].shape[0] // shard.replicas
    return dataset.rebatch(size, drop_remainder=True)
