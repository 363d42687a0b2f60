"""torch: its fused batch normalization, then a mask."""

import math

import torch

from keras_ic.kernels.shapes import channel_shape, reduction_axes
from keras_ic.kernels.threshold import drop_threshold


def _mixed(*parts):
    """splitmix64 over the parts. torch's CPU generator keeps only 32 bits of its seed, so every
    part has to reach all of them.
    """
    state = 0
    for part in parts:
        state = (state ^ (part & 0xFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state


@torch.compiler.disable  # Generators do not pass through torch.compile
def draw(shape, rate, seed, first=None):
    """Two gates a 32-bit word, from a generator of its own for every layer, step and rank of
    torch.distributed.
    """
    device = seed.device
    shape = tuple(int(size) for size in shape)
    if device.type == "meta":  # shape inference: there is nothing to draw
        return torch.empty(shape, dtype=torch.bool, device=device)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    generator = torch.Generator(device=device)
    generator.manual_seed(_mixed(*seed.tolist(), rank) & 0x7FFFFFFFFFFFFFFF)
    size = math.prod(shape)
    words = torch.randint(
        -(2**31), 2**31, ((size + 1) // 2,), dtype=torch.int32, device=device, generator=generator
    )
    return (words.view(torch.int16)[:size] >= drop_threshold(rate) - 2**15).reshape(shape)


def _wide(dtype):
    return torch.promote_types(dtype, torch.float32)


def moments(x, axis, valid=None):
    x = x.to(_wide(x.dtype))
    axes = reduction_axes(x.ndim, axis)
    if valid is None:
        variance, mean = torch.var_mean(x, axes, correction=0)
        return mean, variance, torch.full_like(mean, x.numel() // x.shape[axis])
    valid = torch.broadcast_to(valid, x.shape)
    count = torch.sum(valid, axes, dtype=x.dtype)
    divisor = torch.clamp(count, min=1)
    mean = torch.sum(torch.where(valid, x, 0), axes) / divisor
    centred = torch.where(valid, x - mean.reshape(channel_shape(x.ndim, axis)), 0)
    return mean, torch.sum(torch.square(centred), axes) / divisor, count


def _drop(y, keep):
    return y if keep is None else torch.where(keep, y, 0)


def normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon):
    dtype = _wide(x.dtype)
    scale = torch.rsqrt(variance.to(dtype) + epsilon)
    if gamma is not None:
        scale = scale * gamma.to(dtype)
    offset = -mean.to(dtype) * scale
    if beta is not None:
        offset = offset + beta.to(dtype)
    if keep is not None:
        scale, offset = scale / (1 - rate), offset / (1 - rate)
    shape = channel_shape(x.ndim, axis)
    y = torch.addcmul(offset.reshape(shape), x.to(dtype), scale.reshape(shape))
    return _drop(y.to(x.dtype), keep)


def train(x, gamma, beta, keep, rate, axis, epsilon):
    rows = x.numel() // x.shape[axis]
    if rows < 2:  # torch would refuse a variance of one value
        mean, variance, _ = moments(x, axis)
        return normalize(x, mean, variance, gamma, beta, keep, rate, axis, epsilon), mean, variance
    dtype = _wide(x.dtype)
    channels = x.shape[axis]
    gamma = torch.ones(channels, dtype=dtype, device=x.device) if gamma is None else gamma.to(dtype)
    beta = torch.zeros(channels, dtype=dtype, device=x.device) if beta is None else beta.to(dtype)
    if keep is not None:
        gamma, beta = gamma / (1 - rate), beta / (1 - rate)
    # With momentum 1 the running statistics of torch become those of the batch.
    mean, variance = torch.zeros_like(gamma), torch.ones_like(gamma)
    y = torch.nn.functional.batch_norm(
        torch.movedim(x, axis, 1),
        mean,
        variance,
        gamma,
        beta,
        training=True,
        momentum=1.0,
        eps=epsilon,
    )
    return _drop(torch.movedim(y, 1, axis), keep), mean, variance * ((rows - 1) / rows)
