import numpy as np
import pytest

from keras_ic.training.datasets import augment

pytestmark = pytest.mark.tensorflow_only


def test_the_middle_part_is_that_of_resizing_and_cutting():
    import tensorflow as tf

    rows, columns = np.mgrid[0:300, 0:400]
    picture = np.stack([rows * 255 / 300, columns * 255 / 400, 0 * rows], -1).astype("uint8")
    ours = augment.middle_part(tf.io.encode_jpeg(picture, quality=100), 224).numpy().astype(int)
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
            augment.random_part(content, 64, tf.constant([3, 2 * number], tf.int64))
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
