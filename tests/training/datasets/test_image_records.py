"""Damaged images and shards are named, counted and passed over."""

import dataclasses
import logging

import numpy as np
import pytest

from keras_ic.training import datasets
from keras_ic.training.datasets.image_records import Damages
from tests.training.conftest import jpeg, write_shard
from tests.training.datasets.reading import batches

pytestmark = pytest.mark.tensorflow_only


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
    return datasets.find_images(folder, "train")


def test_damaged_images_and_shards_are_named_and_counted_and_training_goes_on(tmp_path, caplog):
    found = damaged(tmp_path)
    assert found.counts == [15, 12] and found.cut_off == [str(tmp_path / "train-00001-of-00002")]
    damages = Damages(found.examples)
    with caplog.at_level(logging.WARNING):
        weights = np.concatenate(
            [
                weights
                for _, _, weights in batches(
                    datasets.training_images(found, 3, 32, damages=damages), 9
                )
            ]
        )
    assert weights.tolist().count(0) == 4 and len(damages.names) == 4
    assert damages.names == {
        f"{tmp_path}/train-00000-of-00002, record {n}" for n in (12, 13, 14)
    } | {f"{tmp_path}/train-00001-of-00002, record 11"}
    assert "damaged image, left out: " in caplog.text and "(4 so far)" in caplog.text
    again = np.concatenate(
        [
            weights
            for _, _, weights in batches(
                datasets.training_images(found, 3, 32, damages=damages), 18
            )
        ]
    )
    # In both epochs, and counted once.
    assert again.tolist().count(0) == 8 and len(damages.names) == 4
    tested = batches(datasets.validation_images(found, 4, 32))
    assert sum(weights.sum() for _, _, weights in tested) == 23 and len(tested) == 7


def test_a_class_that_there_is_not_counts_as_damage(tmp_path):
    write_shard(tmp_path / "train-00000-of-00001", [(jpeg(0, n), n) for n in range(4)])
    (tmp_path / "label.labels.txt").write_text("a\nb\n")
    found = datasets.find_images(tmp_path, "train")
    damages = Damages(found.examples)
    (_, classes, weights), *_ = batches(datasets.training_images(found, 4, 32, damages=damages), 1)
    assert weights.sum() == 2 and (classes.sum(1) == weights).all()
    assert damages.names == {f"{tmp_path}/train-00000-of-00001, record {n}" for n in (2, 3)}


def test_a_flipped_byte_in_a_shard_loses_no_more_than_the_shard(tmp_path):
    write_shard(tmp_path / "train-00000-of-00002", [(jpeg(0, n), 0) for n in range(6)])
    write_shard(tmp_path / "train-00001-of-00002", [(jpeg(1, n), 1) for n in range(6)])
    path = tmp_path / "train-00000-of-00002"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    found = datasets.find_images(tmp_path, "train")
    weights = np.concatenate(
        [weights for _, _, weights in batches(datasets.training_images(found, 4, 32), 3)]
    )
    assert 6 < weights.sum() < 12


def test_a_damaged_file_among_images(tmp_path, folders):
    found = datasets.find_images(folders, "train")
    broken = tmp_path / "broken.JPEG"
    broken.write_bytes(b"\xff\xd8\xff")
    found = dataclasses.replace(found, files=[*found.files[:-1], str(broken)])
    damages = Damages(found.examples)
    weights = np.concatenate(
        [
            weights
            for _, _, weights in batches(datasets.training_images(found, 8, 32, damages=damages), 4)
        ]
    )
    assert weights.sum() == 31 and damages.names == {str(broken)}


def test_too_many_damaged_images_stop(tmp_path):
    write_shard(tmp_path / "train-00000-of-00001", [(b"x", 0)] * 30)
    damages = Damages(30)
    with pytest.raises(
        Exception, match=r"2\d images are damaged, more than the 20 that are passed over"
    ):
        batches(
            datasets.training_images(
                datasets.find_images(tmp_path, "train"), 10, 32, damages=damages
            ),
            3,
        )
    assert Damages(1_000_000).limit == 1000
