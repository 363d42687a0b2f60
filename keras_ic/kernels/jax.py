"""JAX: moments in one pass, one multiply-add a value and a 16-bit ThreeFry mask, fused by XLA."""

import math

import jax
import jax.numpy as jnp

from keras_ic.kernels.shapes import channel_shape, first_example, reduction_axes
from keras_ic.kernels.threefry import threefry
from keras_ic.kernels.threshold import drop_threshold


def draw(shape, rate, seed, first=None):
    """Four gates a run of ThreeFry. Key: layer seed and step; counter: row and position in the row.

    The draw is of the global array, so every device of a `keras.distribution` gets its own part of
    it.
    """
    head, tail = shape[0], math.prod(shape[1:])
    counter = [
        jax.lax.broadcasted_iota(jnp.uint32, (head, (tail + 3) // 4), axis) for axis in (0, 1)
    ]
    seed = jnp.asarray(seed, jnp.uint32)
    halves = [
        half
        for word in threefry(seed, counter)
        for half in (word & jnp.uint32(0xFFFF), word >> jnp.uint32(16))
    ]
    # The quarters of a row one after the other: XLA writes each in one go, where neighbours of each
    # other would have to be interleaved.
    keep = jnp.concatenate([half >= jnp.uint32(drop_threshold(rate)) for half in halves], axis=1)
    # The barrier keeps a byte a value, where XLA would draw again in each loop that reads the mask.
    return jax.lax.optimization_barrier(keep[:, :tail].reshape(shape))


def _wide(dtype):
    return jnp.promote_types(dtype, jnp.float32)


def moments(x, axis, valid=None):
    x = x.astype(_wide(x.dtype))
    axes = tuple(reduction_axes(x.ndim, axis))
    columns = channel_shape(x.ndim, axis)
    if valid is None:
        shift = jax.lax.stop_gradient(jnp.mean(x[first_example(x.ndim, axis)], axes))
        off = x - shift.reshape(columns)
        mean, second = jnp.mean(off, axes), jnp.mean(jnp.square(off), axes)
        # Where the squares overflow, both terms are infinite, and so is the variance.
        variance = jnp.maximum(second - jnp.square(mean), 0)
        variance = jnp.where(second == jnp.inf, jnp.inf, variance)
        return shift + mean, variance, jnp.full_like(mean, x.size // x.shape[axis])
    valid = jnp.broadcast_to(valid, x.shape)
    count = jnp.sum(valid, axes, dtype=x.dtype)
    divisor = jnp.maximum(count, 1)
    mean = jnp.sum(jnp.where(valid, x, 0), axes) / divisor
    centred = jnp.where(valid, x - mean.reshape(columns), 0)
    return mean, jnp.sum(jnp.square(centred), axes) / divisor, count


def normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon):
    dtype = _wide(x.dtype)
    scale = jax.lax.rsqrt(variance.astype(dtype) + epsilon)
    if gamma is not None:
        scale = scale * gamma.astype(dtype)
    offset = -mean.astype(dtype) * scale
    if beta is not None:
        offset = offset + beta.astype(dtype)
    if keep is not None:
        scale, offset = scale / (1 - rate), offset / (1 - rate)
    shape = channel_shape(x.ndim, axis)
    y = x.astype(dtype) * scale.reshape(shape) + offset.reshape(shape)
    if keep is not None:
        y = jnp.where(keep, y, 0)
    return y.astype(x.dtype)


def train(x, gamma, beta, keep, rate, axis, epsilon):
    mean, variance, _ = moments(x, axis)
    return normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon), mean, variance
