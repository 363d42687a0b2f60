"""What a training gets of image files."""

import numpy as np
import pytest

from keras_ic.training import datasets, preset
from keras_ic.training.datasets import ImageFiles, Shard, image_files
from tests.training.datasets.reading import batches


def config(data, **changes):
    return preset("small", data=str(data), **{"image_size": 32, "batch": 8, **changes})


def test_what_it_says_of_itself(shards):
    images = ImageFiles(config(shards))
    assert images.shape == (32, 32, 3) and images.classes == 4 and images.steps == 7
    assert images.sizes == {"train": 62, "validation": 19}
    assert images.is_one_hot and not images.is_standardized
    assert isinstance(datasets.make_dataset(config(shards)), ImageFiles)


def test_replicas_get_the_parts_of_a_batch_one_after_another(shards):
    images = ImageFiles(config(shards), share_by="records")
    (whole,) = batches(images.train(3, Shard()), 1)
    parts = [batches(images.train(3, Shard(worker, 2, 2)), 2) for worker in range(2)]
    for index, values in enumerate(whole):
        joined = [part[index] for worker in parts for part in worker]
        np.testing.assert_array_equal(np.concatenate(joined), values)


def test_every_replica_has_the_same_number_of_batches_to_judge_on(shards):
    images = ImageFiles(config(shards))
    shard = Shard(1, 2, 2)
    found = batches(images.validation(shard))
    assert len(found) == 2 * images.validation_steps(shard)
    assert {len(values) for values, _, _ in found} == {2}


def test_images_to_calibrate_with_are_the_same_on_every_worker(shards, monkeypatch):
    monkeypatch.setattr(image_files, "CALIBRATION_BATCH", 6)
    images = ImageFiles(config(shards), deterministic=False)
    assert images.calibration_steps == 2  # a fifth of 62 images
    one, two = batches(images.calibration()), batches(images.calibration(), 2)
    assert len(one) == 10
    np.testing.assert_array_equal(one[1][0], two[1][0])
    assert (one[0][0] != batches(images.train(0, Shard()), 1)[0][0][:6]).any()


def test_splits_of_other_classes(folders, tmp_path):
    (tmp_path / "train").symlink_to(folders / "train")
    for name in ("n01", "n05"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "x.jpeg").touch()
    with pytest.raises(
        ValueError, match=r"same classes\. Received: 4 and 2, n02, n03, n04 in one alone"
    ):
        ImageFiles(config(tmp_path))


def test_fewer_images_than_in_a_batch(shards):
    with pytest.raises(ValueError, match="Received: 62 images, batch=64"):
        ImageFiles(config(shards, batch=64))
