"""Small image sets in all three layouts: classes that differ in colour, so that a network learns
them in a few steps.
"""

import numpy as np
import pytest

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40))


def jpeg(label, number, side=48):
    """Its pixels depend on class and number alone; no two images are the same."""
    import tensorflow as tf

    draw = np.random.default_rng([label, number])
    noise = draw.normal(0, 25, (side, side + 16, 3))
    return tf.io.encode_jpeg(
        np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype("uint8"), quality=95
    ).numpy()


def write_shard(path, examples, names=("image", "label"), first=0):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for content, label in examples:
            feature = {
                names[0]: tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
                names[1]: tf.train.Feature(int64_list=tf.train.Int64List(value=[label + first])),
            }
            writer.write(
                tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
            )


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Four shards of 14 to 17 training images, two of 9 and 10 test images, of four classes."""
    folder = tmp_path_factory.mktemp("shards")
    for split, counts in (("train", (16, 14, 17, 15)), ("validation", (9, 10))):
        number = 100 * (split == "validation")
        for shard, count in enumerate(counts):
            examples = [
                (jpeg(index % 4, number + index), index % 4)
                for index in range(number, number + count)
            ]
            number += count
            write_shard(folder / f"{split}-{shard:05d}-of-{len(counts):05d}", examples)
    (folder / "label.labels.txt").write_text("red\ngreen\nblue\nyellow\n")
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder for each class, with 8 training and 3 test images each."""
    folder = tmp_path_factory.mktemp("folders")
    for split, count in (("train", 8), ("val", 3)):
        for label, name in enumerate(("n01", "n02", "n03", "n04")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                (folder / split / name / f"{name}_{number}.JPEG").write_bytes(
                    jpeg(label, number + 100 * (split == "val"))
                )
    return folder


@pytest.fixture
def tiny(monkeypatch):
    import keras

    from tests.training.tiny import tiny

    monkeypatch.setattr(keras.applications, "Tiny", tiny, raising=False)
