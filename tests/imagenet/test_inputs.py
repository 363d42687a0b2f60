"""The pipeline: each image once, the same order for the same seed whatever happened before, damaged
data counted and named.
"""

import dataclasses
import itertools
import logging

import numpy as np
import pytest

from keras_ic import imagenet
from keras_ic.imagenet import decoding, inputs
from tests.imagenet.conftest import COLOURS, jpeg, write_shard

pytestmark = pytest.mark.tensorflow_only


def batches(dataset, count=None):
    return [
        tuple(part.numpy() for part in batch) for batch in itertools.islice(iter(dataset), count)
    ]


def source(folder, split="train"):
    return imagenet.find(folder, split)


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
    for images, classes, weights in batches(imagenet.training(source(shards), 8, 32), 4):
        assert images.dtype == np.uint8 and images.shape == (8, 32, 32, 3) and weights.all()
        for image, label in zip(images, classes.argmax(1), strict=True):
            assert np.abs(image.mean((0, 1)) - COLOURS[label]).max() < 12


def test_the_middle_part_is_that_of_resizing_and_cutting():
    import tensorflow as tf

    rows, columns = np.mgrid[0:300, 0:400]
    picture = np.stack([rows * 255 / 300, columns * 255 / 400, 0 * rows], -1).astype("uint8")
    ours = decoding.middle_part(tf.io.encode_jpeg(picture, quality=100), 224).numpy().astype(int)
    resized = tf.image.resize(picture.astype("float32"), [256, 341])[16:240, 58:282].numpy()
    assert np.abs(ours - resized).max() < 6


def test_random_parts_have_the_areas_and_ratios_they_should():
    import tensorflow as tf

    rows, columns = np.mgrid[0:256, 0:256]
    content = tf.io.encode_jpeg(
        np.stack([rows, columns, 0 * rows], -1).astype("uint8"), quality=100
    )
    areas, flips = [], 0
    for number in range(200):
        part = (
            decoding.random_part(content, 64, tf.constant([3, 2 * number], tf.int64))
            .numpy()
            .astype(float)
        )
        height, width = np.ptp(part[:, 32, 0]) / 256, np.ptp(part[32, :, 1]) / 256
        flips += part[32, 0, 1] > part[32, -1, 1]
        areas.append(height * width)
        assert 0.7 < width / height < 1.45
    assert 0.05 < min(areas) < 0.2 and 0.8 < max(areas) <= 1.05
    assert abs(flips - 100) < 35
    # Uniform from 0.08 to 1, a little less where a tall or wide window would not fit.
    assert 0.35 < np.mean(areas) < 0.65


@pytest.mark.parametrize("layout", ["shards", "folders"])
def test_every_image_once_an_epoch_and_another_order_each_time(layout, request):
    found = source(request.getfixturevalue(layout))
    steps = found.examples // 2
    middle = {
        float(image.astype("float64").sum())
        for images, _, _ in batches(imagenet.validation(found, 1, 32))
        for image in images
    }
    assert len(middle) == found.examples
    labels = [
        classes.argmax(1).tolist()
        for _, classes, _ in batches(imagenet.training(found, 2, 32, seed=5), 2 * steps)
    ]
    one, two = labels[:steps], labels[steps:]
    assert sorted(joined(one)) == sorted(joined(two)) and one != two
    counts = np.bincount(joined(one))
    assert counts.tolist() == [found.examples // 4] * 4 or layout == "shards"


@pytest.mark.parametrize("layout", ["shards", "folders"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_order_is_that_of_an_unbroken_one(layout, workers, request):
    found = source(request.getfixturevalue(layout))
    part = imagenet.Part(workers - 1, workers, "files" if layout == "shards" else "auto")
    whole = batches(imagenet.training(found, 4, 32, part, seed=1), 12)
    for begin in (1, 7, 9):  # within epochs
        resumed = batches(imagenet.training(found, 4, 32, part, seed=1, begin=begin), 12 - begin)
        for ours, theirs in zip(resumed, whole[begin:], strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
    assert any(
        (a[0] != b[0]).any()
        for a, b in zip(
            whole, batches(imagenet.training(found, 4, 32, part, seed=2), 12), strict=True
        )
    )


@pytest.mark.parametrize("layout", ["shards", "folders"])
def test_by_records_two_workers_share_the_batches_of_one(layout, request):
    found = source(request.getfixturevalue(layout))
    alone = batches(imagenet.training(found, 8, 32, seed=3), 10)
    shared = [
        batches(imagenet.training(found, 4, 32, imagenet.Part(worker, 2, "records"), seed=3), 10)
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
        batches(imagenet.training(found, 4, 32, imagenet.Part(worker, 2, "files"), seed=1), 7)
        for worker in range(2)
    ]
    again = [
        batches(imagenet.training(found, 4, 32, imagenet.Part(worker, 2, "files"), seed=1), 7)
        for worker in range(2)
    ]
    assert fingerprints(order[0]) == fingerprints(again[0])
    assert not set(fingerprints(order[0])) & set(fingerprints(order[1]))


@pytest.mark.parametrize(
    ("workers", "by"), [(1, "auto"), (2, "files"), (2, "records"), (3, "auto")]
)
@pytest.mark.parametrize("layout", ["shards", "folders"])
def test_every_test_image_is_counted_once(layout, workers, by, request):
    found = source(request.getfixturevalue(layout), "validation")
    every = sorted(fingerprints(batches(imagenet.validation(found, 5, 32))))
    assert len(set(every)) == found.examples
    parts = [
        batches(imagenet.validation(found, 4, 32, imagenet.Part(worker, workers, by)))
        for worker in range(workers)
    ]
    assert sorted(joined(fingerprints(part) for part in parts)) == every
    assert len({len(part) for part in parts}) == 1  # or some would wait for the others for ever


def test_how_workers_share(shards, folders):
    found = source(shards)
    assert [imagenet.Part(0, workers).of(found) for workers in (1, 2, 3, 4, 5)] == [
        "records",
        "files",
        "records",
        "files",
        "records",
    ]
    assert imagenet.Part(0, 2).of(source(folders)) == "records"
    with pytest.raises(
        ValueError, match=r"fewer files than workers.*Received: 4 files for 5 workers"
    ):
        imagenet.Part(0, 5, "files").of(found)
    with pytest.raises(ValueError, match="Received: by='shards'"):
        imagenet.Part(by="shards").of(found)
    with pytest.raises(
        ValueError, match=r"fewer images than in one batch.*Received: 62 images, a batch of 64"
    ):
        imagenet.training(found, 32, 32, imagenet.Part(0, 2))


def damaged(folder):
    """Two shards: one with a text for an image, an image cut off in its header and a picture of
    zero bytes, the other cut off itself.
    """
    whole = [(jpeg(index % 4, index), index % 4) for index in range(12)]
    write_shard(
        folder / "train-00000-of-00002", [*whole, (b"no image", 1), (whole[0][0][:60], 2), (b"", 3)]
    )
    write_shard(folder / "train-00001-of-00002", whole)
    path = folder / "train-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-100])
    (folder / "label.labels.txt").write_text("red\ngreen\nblue\nyellow\n")
    return imagenet.find(folder, "train")


def test_damaged_images_and_shards_are_named_and_counted_and_training_goes_on(tmp_path, caplog):
    found = damaged(tmp_path)
    assert found.counts == [15, 12] and found.cut_off == [str(tmp_path / "train-00001-of-00002")]
    damages = inputs.Damages(found.examples)
    with caplog.at_level(logging.WARNING):
        weights = np.concatenate(
            [
                weights
                for _, _, weights in batches(imagenet.training(found, 3, 32, damages=damages), 9)
            ]
        )
    assert weights.tolist().count(0) == 4 and len(damages.names) == 4
    assert damages.names == {
        f"{tmp_path}/train-00000-of-00002, record {n}" for n in (12, 13, 14)
    } | {f"{tmp_path}/train-00001-of-00002, record 11"}
    assert "damaged image, left out: " in caplog.text and "(4 so far)" in caplog.text
    again = np.concatenate(
        [weights for _, _, weights in batches(imagenet.training(found, 3, 32, damages=damages), 18)]
    )
    # In both epochs, and counted once.
    assert again.tolist().count(0) == 8 and len(damages.names) == 4
    tested = batches(imagenet.validation(found, 4, 32))
    assert sum(weights.sum() for _, _, weights in tested) == 23 and len(tested) == 7


def test_a_class_that_there_is_not_counts_as_damage(tmp_path):
    write_shard(tmp_path / "train-00000-of-00001", [(jpeg(0, n), n) for n in range(4)])
    (tmp_path / "label.labels.txt").write_text("a\nb\n")
    found = imagenet.find(tmp_path, "train")
    damages = inputs.Damages(found.examples)
    (_, classes, weights), *_ = batches(imagenet.training(found, 4, 32, damages=damages), 1)
    assert weights.sum() == 2 and (classes.sum(1) == weights).all()
    assert damages.names == {f"{tmp_path}/train-00000-of-00001, record {n}" for n in (2, 3)}


def test_a_flipped_byte_in_a_shard_loses_no_more_than_the_shard(tmp_path):
    write_shard(tmp_path / "train-00000-of-00002", [(jpeg(0, n), 0) for n in range(6)])
    write_shard(tmp_path / "train-00001-of-00002", [(jpeg(1, n), 1) for n in range(6)])
    path = tmp_path / "train-00000-of-00002"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    found = imagenet.find(tmp_path, "train")
    weights = np.concatenate(
        [weights for _, _, weights in batches(imagenet.training(found, 4, 32), 3)]
    )
    assert 6 < weights.sum() < 12


def test_a_damaged_file_among_images(tmp_path, folders):
    found = source(folders)
    broken = tmp_path / "broken.JPEG"
    broken.write_bytes(b"\xff\xd8\xff")
    found = dataclasses.replace(found, files=[*found.files[:-1], str(broken)])
    damages = inputs.Damages(found.examples)
    weights = np.concatenate(
        [weights for _, _, weights in batches(imagenet.training(found, 8, 32, damages=damages), 4)]
    )
    assert weights.sum() == 31 and damages.names == {str(broken)}


def test_too_many_damaged_images_stop(tmp_path):
    write_shard(tmp_path / "train-00000-of-00001", [(b"x", 0)] * 30)
    damages = inputs.Damages(30)
    with pytest.raises(
        Exception, match=r"2\d images are damaged, more than the 20 that are passed over"
    ):
        batches(imagenet.training(imagenet.find(tmp_path, "train"), 10, 32, damages=damages), 3)
    assert inputs.Damages(1_000_000).limit == 1000


def test_not_deterministic_gives_the_same_images_in_some_order(shards):
    found = source(shards)
    labels = joined(
        classes.argmax(1).tolist()
        for _, classes, _ in batches(imagenet.training(found, 2, 32, deterministic=False), 31)
    )
    assert np.bincount(labels).sum() == 62


def test_synthetic():
    one, two = batches(imagenet.synthetic(3, 32, 7), 2)
    assert (
        one[0].shape == (3, 32, 32, 3) and one[1].shape == (3, 7) and one[2].tolist() == [1, 1, 1]
    )
    np.testing.assert_array_equal(one[0], two[0])
