"""Each image once, the same order for the same seed whatever happened before."""

import itertools

import keras
import numpy as np
import pytest

from keras_ic.training import datasets
from keras_ic.training.datasets import augment
from tests.training.conftest import COLOURS
from tests.training.datasets.reading import batches

pytestmark = pytest.mark.tensorflow_only


def source(folder, split="train"):
    return datasets.find_images(folder, split)


def joined(lists):
    return list(itertools.chain.from_iterable(lists))


def fingerprints(found):
    """One number an image: they differ, since the images are of noise."""
    return [
        float(image.astype("float64").sum())
        for images, _, weights in found
        for image, weight in zip(images, weights, strict=True)
        if weight
    ]


def test_a_random_part_is_a_part_of_the_image_of_the_right_class(shards):
    for images, classes, weights in batches(datasets.training_images(source(shards), 8, 32), 4):
        assert images.dtype == np.uint8 and images.shape == (8, 32, 32, 3) and weights.all()
        for image, label in zip(images, classes.argmax(1), strict=True):
            assert np.abs(image.mean((0, 1)) - COLOURS[label]).max() < 12


@pytest.mark.parametrize("layout", ["shards", "folders"])
def test_every_image_once_an_epoch_and_another_order_each_time(layout, request, monkeypatch):
    # So that an image is told by its pixels.
    monkeypatch.setattr(
        augment, "random_part", lambda content, size, seed: augment.middle_part(content, size)
    )
    found = source(request.getfixturevalue(layout))
    steps = found.examples // 2
    seen = fingerprints(batches(datasets.training_images(found, 2, 32, seed=5), 2 * steps))
    one, two = seen[: found.examples], seen[found.examples :]
    assert len(set(one)) == found.examples and sorted(one) == sorted(two) and one != two


@pytest.mark.parametrize(
    ("layout", "workers", "begin"),
    [("shards", 1, 20), ("shards", 2, 9), ("folders", 1, 1), ("folders", 2, 8)],
)
def test_a_resumed_order_is_that_of_an_unbroken_one(layout, workers, begin, request):
    """Of 15 or 7 steps an epoch with one worker or two; of the folders, 8 or 4."""
    found = source(request.getfixturevalue(layout))
    part = datasets.Part(workers - 1, workers, "files" if layout == "shards" else "auto")
    whole = batches(datasets.training_images(found, 4, 32, part, seed=1), begin + 3)
    resumed = batches(datasets.training_images(found, 4, 32, part, seed=1, begin=begin), 3)
    for ours, theirs in zip(resumed, whole[begin:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_order_depends_on_no_other_seed_than_its_own(shards):
    def order(seed, global_seed):
        keras.utils.set_random_seed(global_seed)
        return fingerprints(batches(datasets.training_images(source(shards), 4, 32, seed=seed), 2))

    assert order(1, 5) == order(1, 6) != order(2, 6)


@pytest.mark.parametrize("layout", ["shards", "folders"])
def test_by_records_two_workers_share_the_batches_of_one(layout, request):
    found = source(request.getfixturevalue(layout))
    alone = batches(datasets.training_images(found, 8, 32, seed=3), 10)
    shared = [
        batches(
            datasets.training_images(found, 4, 32, datasets.Part(worker, 2, "records"), seed=3), 10
        )
        for worker in range(2)
    ]
    for whole, one, two in zip(alone, *shared, strict=True):
        for a, b, c in zip(whole, one, two, strict=True):
            np.testing.assert_array_equal(a, np.concatenate([b, c]))


def test_by_files_every_shard_is_read_by_one_worker(shards):
    """Of an epoch, before any image comes twice: 62 images in 7 batches of 4 on each of 2 workers,
    less than the 29 that the smaller half has.
    """
    found = source(shards)
    order = [
        batches(
            datasets.training_images(found, 4, 32, datasets.Part(worker, 2, "files"), seed=1), 7
        )
        for worker in range(2)
    ]
    assert not set(fingerprints(order[0])) & set(fingerprints(order[1]))


@pytest.mark.parametrize("layout", ["shards", "folders"])
def test_every_test_image_is_counted_once(layout, request):
    found = source(request.getfixturevalue(layout), "validation")
    every = sorted(fingerprints(batches(datasets.validation_images(found, 5, 32))))
    assert len(set(every)) == found.examples
    for workers, by in ((2, "files"), (3, "records")) if layout == "shards" else ((2, "auto"),):
        parts = [
            batches(datasets.validation_images(found, 4, 32, datasets.Part(worker, workers, by)))
            for worker in range(workers)
        ]
        assert sorted(joined(fingerprints(part) for part in parts)) == every
        assert len({len(part) for part in parts}) == 1  # or some would wait for the others for ever


def test_how_workers_share(shards, folders):
    found = source(shards)
    assert [datasets.Part(0, workers).of(found) for workers in (1, 2, 3, 4, 5)] == [
        "records",
        "files",
        "records",
        "files",
        "records",
    ]
    assert datasets.Part(0, 2).of(source(folders)) == "records"
    with pytest.raises(
        ValueError, match=r"fewer files than workers.*Received: 4 files for 5 workers"
    ):
        datasets.Part(0, 5, "files").of(found)
    with pytest.raises(ValueError, match="Received: by='shards'"):
        datasets.Part(by="shards").of(found)
    with pytest.raises(
        ValueError, match=r"fewer images than in one batch.*Received: 62 images, a batch of 64"
    ):
        datasets.training_images(found, 32, 32, datasets.Part(0, 2))


def test_not_deterministic_gives_the_same_images_in_some_order(shards):
    found = source(shards)
    labels = joined(
        classes.argmax(1).tolist()
        for _, classes, _ in batches(
            datasets.training_images(found, 2, 32, deterministic=False), 31
        )
    )
    assert np.bincount(labels).sum() == 62


def test_synthetic():
    one, two = batches(datasets.synthetic_images(3, (32, 32, 3), 7), 2)
    assert (
        one[0].shape == (3, 32, 32, 3) and one[1].shape == (3, 7) and one[2].tolist() == [1, 1, 1]
    )
    np.testing.assert_array_equal(one[0], two[0])
