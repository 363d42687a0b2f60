"""TensorFlow: the fused batch normalization with a 16-bit Philox mask behind it."""

import tensorflow as tf

from keras_ic.kernels.shapes import channel_shape, reduction_axes
from keras_ic.kernels.threshold import drop_threshold

PHILOX = 1  # tf.random.Algorithm.PHILOX, as the raw op wants it
SMALLEST_FUSED_EPSILON = 1.001e-5  # cuDNN refuses less


def draw(shape, rate, seed):
    """Two gates a 32-bit word of Philox. Key: layer seed and replica; counter: step, then position.
    No two streams ever meet.
    """
    shape = tf.stack(shape)
    size = tf.reduce_prod(shape)
    context = tf.distribute.get_replica_context()
    replica = 0 if context is None else context.replica_id_in_sync_group
    seed = tf.cast(seed, tf.int64)
    key = tf.bitcast(seed[0] + tf.bitwise.left_shift(tf.cast(replica, tf.int64), 32), tf.uint64)
    counter = tf.stack([tf.zeros([], tf.uint64), tf.bitcast(seed[1], tf.uint64)])
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[(size + 1) // 2], key=key[tf.newaxis], counter=counter, alg=PHILOX, dtype=tf.uint32
    )
    # Signed halves: every device and XLA can compare int16.
    halves = tf.reshape(tf.bitcast(words, tf.int16), [-1])[:size]
    return tf.reshape(halves >= tf.constant(drop_threshold(rate) - 2**15, tf.int16), shape)


def _wide(dtype):
    return tf.float64 if dtype == tf.float64 else tf.float32


def moments(x, axis, valid=None, shift=None, synchronized=False):
    """With `synchronized`, one all-reduce for the three sums of the layer. They are taken about
    `shift`, so that a large mean costs no digits.
    """
    dtype = _wide(x.dtype)
    x = tf.cast(x, dtype)
    rank = len(x.shape)
    axes = reduction_axes(rank, axis)
    if valid is None:
        mean, variance = tf.nn.moments(x, axes)
        count = tf.cast(tf.size(x, tf.int64) // tf.shape(x, tf.int64)[axis], dtype) * tf.ones_like(
            mean
        )
        # An empty share of a batch has no mean; it must add nothing to the sums below.
        mean, variance = (tf.where(count > 0, moment, 0) for moment in (mean, variance))
    else:
        valid = tf.broadcast_to(valid, tf.shape(x))
        count = tf.reduce_sum(tf.cast(valid, dtype), axes)
        kept = tf.where(valid, x, 0)
        mean = tf.math.divide_no_nan(tf.reduce_sum(kept, axes), count)
        centred = tf.where(valid, x - tf.reshape(mean, channel_shape(rank, axis)), 0)
        variance = tf.math.divide_no_nan(tf.reduce_sum(tf.square(centred), axes), count)
    context = tf.distribute.get_replica_context()
    if synchronized and context is not None and context.num_replicas_in_sync > 1:
        shift = tf.cast(shift, dtype)
        off = mean - shift
        sums = tf.stack([count, count * off, count * (variance + tf.square(off))])
        count, first, second = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.SUM, sums))
        off = tf.math.divide_no_nan(first, count)
        mean = shift + off
        variance = tf.maximum(tf.math.divide_no_nan(second, count) - tf.square(off), 0)
    return mean, variance, count


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
    rank = len(x.shape)
    if x.dtype == tf.float64 or epsilon < SMALLEST_FUSED_EPSILON or axis % rank != rank - 1:
        mean, variance, _ = moments(x, axis)
        return normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon), mean, variance
    channels = x.shape[-1]
    gamma = tf.ones([channels]) if gamma is None else tf.cast(gamma, tf.float32)
    beta = tf.zeros([channels]) if beta is None else tf.cast(beta, tf.float32)
    if keep is not None:
        gamma, beta = gamma / (1 - rate), beta / (1 - rate)
    rows = tf.size(x, tf.int64) // channels
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(x, [rows, 1, 1, channels]),
        scale=gamma,
        offset=beta,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        exponential_avg_factor=1.0,
        is_training=True,
    )
    # The op hands out Bessel's n / (n - 1) variance (and the plain one for n = 1); Keras keeps the
    # plain one.
    rows = tf.cast(rows, tf.float32)
    variance *= tf.where(rows > 1, (rows - 1) / rows, 1)
    return _drop(tf.reshape(y, tf.shape(x)), keep), mean, variance
