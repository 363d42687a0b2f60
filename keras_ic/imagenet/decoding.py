"""From the bytes of a JPEG to the pixels of a network, decoding only the part that is used.

Training: a random part of 8 to 100 % of the area and an aspect ratio from 3/4 to 4/3, resized,
flipped half the time (Szegedy et al., 1409.4842). Test: the middle part that remains if the shorter
side is resized to 256 and 224 pixels are taken, or in this ratio for other sizes.
"""

from typing import Any

RESIZED, TAKEN = 256, 224
AREA, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def random_part(content: Any, size: int, seed: Any) -> Any:
    """A random part of an image, the same for the same seed.

    Args:
        content: Scalar string tensor, a JPEG.
        size: Integer, pixels of the sides of the result.
        seed: Integer tensor `(2,)`.

    Returns:
        A uint8 tensor `(size, size, 3)`.
    """
    import tensorflow as tf

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
    window = tf.concat([begin[:2], extent[:2]], 0)
    image = _resized(_window(content, window), size)
    return tf.image.stateless_random_flip_left_right(image, seed + 1)


def middle_part(content: Any, size: int) -> Any:
    """The middle part of an image; see `random_part`."""
    import tensorflow as tf

    shape = tf.io.extract_jpeg_shape(content)[:2]
    side = tf.cast(
        tf.round(tf.cast(tf.reduce_min(shape), tf.float32) * (TAKEN / RESIZED)), tf.int32
    )
    side = tf.maximum(side, 1)
    begin = (shape - side + 1) // 2
    return _resized(_window(content, tf.concat([begin, [side, side]], 0)), size)


def _window(content, window):
    import tensorflow as tf

    return tf.io.decode_and_crop_jpeg(content, window, channels=3)


def _resized(image, size):
    import tensorflow as tf

    image = tf.image.resize(image, [size, size])
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
