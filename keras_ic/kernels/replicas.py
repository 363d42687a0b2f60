"""The statistics of all replicas of a `tf.distribute` strategy."""

from keras_ic.utils.lazy_imports import tensorflow as tf


def synchronized(mean, variance, count, shift, examples):
    """Mean, variance and count of the global batch, and the number of its examples that come before
    those here, from what one replica has. All in one all-reduce.

    The sums are taken about `shift`, one number a channel that all replicas have alike, so that a
    large mean costs no digits. The examples of every replica are counted since the last batch of a
    data set need not be split evenly.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return mean, variance, count, 0
    replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
    shift = tf.cast(shift, mean.dtype)
    off = mean - shift
    places = tf.one_hot(replica, replicas, dtype=mean.dtype) * tf.cast(examples, mean.dtype)
    sums = tf.concat([count, count * off, count * (variance + tf.square(off)), places], axis=0)
    sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
    channels = mean.shape[0]
    count, first, second, places = tf.split(sums, [channels, channels, channels, replicas])
    off = tf.math.divide_no_nan(first, count)
    variance = tf.maximum(tf.math.divide_no_nan(second, count) - tf.square(off), 0)
    return shift + off, variance, count, tf.reduce_sum(places[:replica])
