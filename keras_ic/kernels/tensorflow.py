"""TensorFlow: the fused batch normalization, then a 16-bit Philox mask."""

import math

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_ic.kernels.shapes import channel_shape, first_example, reduction_axes
from keras_ic.kernels.threshold import drop_threshold

PHILOX = 1  # tf.random.Algorithm.PHILOX, as the raw op wants it
SMALLEST_FUSED_EPSILON = 1.001e-5  # cuDNN refuses less


def draw(shape, rate, seed, first=None):
    """Two gates a 32-bit word of Philox. Key: layer seed and replica; counter: step, then position.
    No two streams ever meet.

    With `first`, the number of examples of the global batch that come before those here, the
    position is that in the global batch and the replica does not enter. Replicas then draw what one
    device would draw for the same examples. An example starts at a counter of its own for that, so
    its words are a multiple of the four that Philox makes of a counter.
    """
    width = _product(shape[1:])  # of one example: int32 holds it, and stays off the GPU
    counters = (width + 7) // 8
    seed = tf.cast(seed, tf.int64)
    if first is None:
        key, position = seed[0] + tf.bitwise.left_shift(_replica(), 32), tf.zeros([], tf.int64)
    else:
        key, position = seed[0], tf.cast(first, tf.int64) * tf.cast(counters, tf.int64)
    of_words = tf.stack([shape[0], 4 * counters])
    if _under_xla():  # whose loop over one axis is faster
        of_words = tf.reduce_prod(tf.cast(of_words, tf.int64), keepdims=True)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=of_words,
        key=tf.bitcast(key[tf.newaxis], tf.uint64),
        # Stacked after the bitcast: XLA then sees a position of 0, and its loop is faster.
        counter=tf.stack([tf.bitcast(position, tf.uint64), tf.bitcast(seed[1], tf.uint64)]),
        alg=PHILOX,
        dtype=tf.uint32,
    )
    # Signed halves: every device and XLA can compare int16.
    halves = tf.reshape(tf.bitcast(words, tf.int16), tf.stack([shape[0], 8 * counters]))
    keep = halves >= tf.constant(drop_threshold(rate) - 2**15, tf.int16)
    if not isinstance(width, int) or width % 8:
        keep = keep[:, :width]
    return tf.reshape(keep, tf.stack(shape))


def _product(sizes):
    """The product of sizes; a Python integer where all are."""
    if all(isinstance(size, int) for size in sizes):
        return math.prod(sizes)
    return tf.reduce_prod(tf.stack(sizes))


def _replica():
    context = tf.distribute.get_replica_context()
    return tf.cast(0 if context is None else context.replica_id_in_sync_group, tf.int64)


def _wide(dtype):
    return tf.float64 if dtype == tf.float64 else tf.float32


def moments(x, axis, valid=None):
    dtype = _wide(x.dtype)
    x = tf.cast(x, dtype)
    rank = len(x.shape)
    axes = reduction_axes(rank, axis)
    columns = channel_shape(rank, axis)
    if valid is None:
        off, shift = _shifted(x, axis)
        count = _values(x, axis, dtype)
        mean = _mean(off, axes, count)
        variance = tf.maximum(_mean(tf.square(off), axes, count) - tf.square(mean), 0)
        return shift + mean, variance, count * tf.ones_like(mean)
    valid = tf.broadcast_to(valid, tf.shape(x))
    count = tf.reduce_sum(tf.cast(valid, dtype), axes)
    mean = _mean(tf.where(valid, x, 0), axes, count)
    centred = tf.where(valid, x - tf.reshape(mean, columns), 0)
    return mean, _mean(tf.square(centred), axes, count), count


def _shifted(x, axis):
    """`x` minus the mean of its first example, in float32 at least, and that mean."""
    x = tf.cast(x, _wide(x.dtype))
    rank = len(x.shape)
    sample = x[first_example(rank, axis)]
    shift = _mean(sample, reduction_axes(rank, axis), _values(sample, axis, x.dtype))
    shift = tf.stop_gradient(shift)
    return x - tf.reshape(shift, channel_shape(rank, axis)), shift


def _values(x, axis, dtype):
    """The number of values of a channel."""
    return tf.cast(tf.size(x, tf.int64), dtype) / x.shape[axis]


def _mean(x, axes, count):
    # A replica with an empty batch has no mean; 0 adds nothing to the sums of all replicas.
    return tf.math.divide_no_nan(tf.reduce_sum(x, axes), count)


def _drop(y, keep):
    return y if keep is None else tf.where(keep, y, tf.zeros([], y.dtype))


def normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon):
    """One multiply-add a value: the statistics, gamma, beta and the scale of the dropout become one
    scale and one offset a channel.
    """
    dtype = _wide(x.dtype)
    mean = tf.cast(mean, dtype)
    scale = tf.math.rsqrt(tf.cast(variance, dtype) + epsilon)
    if gamma is not None:
        scale *= tf.cast(gamma, dtype)
    offset = -mean * scale
    if beta is not None:
        offset += tf.cast(beta, dtype)
    if keep is not None:
        scale, offset = scale / (1 - rate), offset / (1 - rate)
    shape = channel_shape(len(x.shape), axis)
    y = tf.cast(x, dtype) * tf.reshape(scale, shape) + tf.reshape(offset, shape)
    return _drop(tf.cast(y, x.dtype), keep)


def train(x, gamma, beta, keep, rate, axis, epsilon):
    shape, data_format = _fused_layout(x, axis)
    if data_format is None or x.dtype == tf.float64 or epsilon < SMALLEST_FUSED_EPSILON:
        mean, variance, _ = moments(x, axis)
        return normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon), mean, variance
    channels = x.shape[axis]
    gamma = tf.ones([channels]) if gamma is None else tf.cast(gamma, tf.float32)
    beta = tf.zeros([channels]) if beta is None else tf.cast(beta, tf.float32)
    if keep is not None:
        gamma, beta = gamma / (1 - rate), beta / (1 - rate)
    given, shift = (x, None) if not _under_xla() else _shifted(x, axis)
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=given if shape is None else tf.reshape(given, shape),
        scale=gamma,
        offset=beta,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        exponential_avg_factor=1.0,
        is_training=True,
        data_format=data_format,
    )
    # The op hands out Bessel's variance, over n - 1; Keras keeps the plain one, over n. That of a
    # single value is 0, whatever a device makes of 0 / 0.
    count = _values(x, axis, tf.float32)
    variance = tf.where(count > 1, variance * ((count - 1) / count), 0)
    if shift is not None:
        y, mean = tf.cast(y, x.dtype), mean + shift
    return _drop(y if shape is None else tf.reshape(y, tf.shape(x)), keep), mean, variance


def _fused_layout(x, axis):
    """The shape in which `x` goes into the fused op, None for its own, and the op's name for the
    layout; no layout where the op has none.

    cuDNN bounds the first dimension of a batch normalization, however small the tensor is: 131,070
    was met in training one value a channel and example (pytorch#2917), 65,535 at inference
    (pytorch#19911, oneflow#3147), and torch goes elsewhere from 880,801 on in training
    (aten/src/ATen/native/Normalization.cpp). So the first dimension must not be that of all
    positions. It stays the batch; where there is nothing but the batch, it is 1, and the batch
    takes the place of the height. Five axes become four as inside the op (NDHWC in
    tensorflow/core/kernels/fused_batch_norm_op.cc).
    """
    rank, shape = len(x.shape), tf.shape(x)
    if axis % rank == rank - 1:
        channels = x.shape[-1]
        if rank == 2:
            return [1, shape[0], 1, channels], "NHWC"
        places = _two(rank, [shape[i] for i in range(1, rank - 1)])
        return places and [shape[0], *places, channels], "NHWC"
    if axis % rank == 1:
        places = _two(rank, [shape[i] for i in range(2, rank)])
        return places and [shape[0], x.shape[1], *places], "NCHW"
    return None, None


def _two(rank, places):
    """The axes of positions as two; None where there are two."""
    if rank == 4:
        return None
    return [places[0], tf.reduce_prod(places[1:]) if rank > 4 else 1]


def _under_xla():
    """Whether XLA compiles what is traced now. It takes the fused op apart into E[x^2] - E[x]^2,
    whose variance is negative at a mean of 1e4 and a deviation of 1 (tensorflow#118701), unless `x`
    is shifted first.
    """
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
