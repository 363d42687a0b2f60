"""Augmentation, in the form of functions that are the same for the same random numbers.

Small images in memory are flipped and shifted (He et al., 1512.03385). Of JPEG files, only the part
that is used is decoded: in training a random part of 8 to 100 % of the area and an aspect ratio
from 3/4 to 4/3, resized, flipped half the time (Szegedy et al., 1409.4842); in tests the middle
part that remains if the shorter side is resized to 256 and 224 pixels are taken, or in this ratio
for other sizes.
"""

from typing import Any

from keras_ic.utils.lazy_imports import tensorflow as tf

PADDING = 4  # pixels on each side, of which the crop takes as many away again
RESIZED, TAKEN = 256, 224
AREA, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def flipped_and_shifted(images: Any, flip: Any, shift: Any) -> Any:
    """Flips image `i` where `flip[i]` is 1 and cuts its window at `shift[i]` out of its padded
    self; two gathers for a whole batch.

    Args:
        images: Float tensor `(batch, height, width, channels)`, with height and width known.
        flip: Integer tensor `(batch,)`, 0 or 1.
        shift: Integer tensor `(batch, 2)`, from 0 to `2 * PADDING`.

    Returns:
        A tensor of the shape of `images`.
    """
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [PADDING, PADDING], [PADDING, PADDING], [0, 0]])
    rows = shift[:, :1] + tf.range(height, dtype=tf.int64)
    columns = shift[:, 1:] + tf.range(width, dtype=tf.int64)
    columns = tf.where(flip[:, tf.newaxis] == 1, tf.reverse(columns, [1]), columns)
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def random_part(content: Any, size: int, seed: Any) -> Any:
    """A random part of an image, the same for the same seed.

    Args:
        content: Scalar string tensor, a JPEG.
        size: Integer, pixels of the sides of the result.
        seed: Integer tensor `(2,)`.

    Returns:
        A uint8 tensor `(size, size, 3)`.
    """
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(content),
        tf.zeros([1, 0, 4]),
        seed=seed,
        min_object_covered=0.0,  # of the whole image, since no box is given
        aspect_ratio_range=RATIO,
        area_range=AREA,
        max_attempts=ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    image = _decoded(content, tf.concat([begin[:2], extent[:2]], 0), size)
    return tf.image.stateless_random_flip_left_right(image, seed + 1)


def middle_part(content: Any, size: int) -> Any:
    """The middle part of an image; see `random_part`."""
    shape = tf.io.extract_jpeg_shape(content)[:2]
    side = tf.cast(
        tf.round(tf.cast(tf.reduce_min(shape), tf.float32) * (TAKEN / RESIZED)), tf.int32
    )
    side = tf.maximum(side, 1)
    begin = (shape - side + 1) // 2
    return _decoded(content, tf.concat([begin, [side, side]], 0), size)


def _decoded(content, window, size):
    image = tf.image.resize(tf.io.decode_and_crop_jpeg(content, window, channels=3), [size, size])
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
