"""The definition of the layer's arithmetic, in plain `keras.ops`. Runs everywhere; written to be
read, not to be fast.
"""

import keras
from keras import ops

from keras_ic.kernels.shapes import channel_shape, reduction_axes


def draw(shape, rate, seed, first=None):
    """Bernoulli(1 - rate) gates. The seed and the step both enter the generator of the backend
    through one integer stream.
    """
    return (
        keras.random.uniform(shape, seed=int(seed[0]) * 2_654_435_761 % 2**31 ^ int(seed[1]))
        >= rate
    )


def _wide(dtype):
    # Not `keras.backend.result_type`, which narrows float64 on torch.
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def moments(x, axis, valid=None):
    x = ops.cast(x, _wide(x.dtype))
    rank = len(x.shape)
    axes = reduction_axes(rank, axis)
    weight = (
        ops.ones_like(x)
        if valid is None
        else ops.cast(ops.broadcast_to(valid, ops.shape(x)), x.dtype)
    )
    count = ops.sum(weight, axes)
    divisor = ops.maximum(count, 1)
    # `where`, not a product: a masked position may hold nan.
    kept = x if valid is None else ops.where(weight > 0, x, 0)
    mean = ops.sum(kept, axes) / divisor
    centred = (kept - ops.reshape(mean, channel_shape(rank, axis))) * weight
    variance = ops.sum(ops.square(centred), axes) / divisor
    return mean, variance, count


def normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon):
    dtype = _wide(x.dtype)
    shape = channel_shape(len(x.shape), axis)

    def channels(vector):
        return ops.reshape(ops.cast(vector, dtype), shape)

    y = (ops.cast(x, dtype) - channels(mean)) * ops.rsqrt(channels(variance) + epsilon)
    if gamma is not None:
        y = y * channels(gamma)
    if beta is not None:
        y = y + channels(beta)
    if keep is not None:
        y = ops.where(keep, y / (1.0 - rate), ops.zeros_like(y))
    return ops.cast(y, x.dtype)


def train(x, gamma, beta, keep, rate, axis, epsilon):
    mean, variance, _ = moments(x, axis)
    return normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon), mean, variance
