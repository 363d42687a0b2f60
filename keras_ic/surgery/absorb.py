"""Absorbing a per-channel affine map into the weights of a linear layer: `scale * layer(x) + shift`
and `layer(scale * x + shift)`.

Everything here is exact linear algebra on the weights as a dictionary by name (`kernel`, or
`depthwise_kernel` and `pointwise_kernel`, and `bias`), and knows nothing of graphs. Kernels stay in
their precision, which a factor costs one rounding; sums are taken in float64.
"""

import math

import numpy as np
from keras import layers

from keras_ic.surgery import einsum
from keras_ic.surgery.kinds import (
    CONVOLUTIONS,
    DEPTHWISE,
    SEPARABLE,
    TRANSPOSED,
    WEIGHT_LAYERS,
    channels_first,
    has_linear_activation,
    inside_time,
    time_axes,
)
from keras_ic.surgery.maps import AffineMap


def as_array(variable) -> np.ndarray:
    """The value of a weight in float64."""
    return np.asarray(variable.numpy(), "float64")


def is_linear(layer) -> bool:
    """Whether it is one of Keras's own linear layers, the class itself, whose kernel is its only
    kernel.
    """
    return (
        type(layer) in WEIGHT_LAYERS
        and layer.quantization_mode is None
        and not getattr(layer, "lora_enabled", False)
    )


def has_bias(layer) -> bool:
    """Whether the linear layer has a bias."""
    return (
        layer.bias_axes is not None
        if isinstance(layer, layers.EinsumDense)
        else bool(layer.use_bias)
    )


def bias_changes(layer) -> dict:
    """What to change in the configuration of a bias-free linear layer so that it has a bias of one
    value an output channel.
    """
    if isinstance(layer, layers.EinsumDense):
        return {"bias_axes": einsum.bias_letters(layer)}
    return {"use_bias": True}


def size_of_new_bias(operation, shape: tuple) -> int:
    """How many values the bias has that a bias-free linear layer gets, be it inside
    `TimeDistributed`; `shape` is that of its output.
    """
    layer, ahead = inside_time(operation), time_axes(operation)
    axis = einsum.bias_axis if isinstance(layer, layers.EinsumDense) else channel_axis
    return shape[axis(layer, len(shape) - ahead) + ahead]


def channel_axis(layer, rank: int) -> int:
    """The axis, from 0, of the channels in a linear layer's input or output of this rank."""
    return 1 if channels_first(layer) else rank - 1


def takes_output_affine(layer, axis: int, rank: int, fused: bool = False) -> bool:
    """Whether `scale * layer(x) + shift` along `axis` of an output of this rank is again such a
    layer, with a bias where it had none.

    With `fused`, its activation is left aside.
    """
    if (
        not is_linear(layer)
        or not (fused or has_linear_activation(layer))
        or axis != channel_axis(layer, rank)
    ):
        return False
    if isinstance(layer, layers.EinsumDense):
        kernel, letter = _einsum_letters(layer)
        return letter in kernel and (layer.bias_axes is None or letter in layer.bias_axes)
    return True


def takes_input_affine(layer, axis: int, rank: int, with_shift: bool) -> bool:
    """Whether `layer(scale * x + shift)` along `axis` of an input of this rank is again such a
    layer.

    A shift is not, where the layer puts zeros around its input, for the zeros are not shifted; nor
    in transposed convolutions, whose outputs near the border, and between strides, meet fewer
    weights.
    """
    if (
        not is_linear(layer)
        or isinstance(layer, layers.EinsumDense)
        or axis != channel_axis(layer, rank)
    ):
        return False
    if not with_shift or isinstance(layer, layers.Dense):
        return True
    return not isinstance(layer, TRANSPOSED) and (
        layer.padding == "valid" or math.prod(layer.kernel_size) == 1
    )


def takes_input_map(layer, given: AffineMap) -> bool:
    """Whether `layer(scale * x + shift)` is again such a layer, with a bias if it has none; see
    `takes_input_affine`.
    """
    rank = given.scale.ndim + 1
    if is_linear(layer) and isinstance(layer, layers.EinsumDense):
        return einsum.takes_input(layer, given)
    if not is_linear(layer) or not given.axes <= {channel_axis(layer, rank)}:
        return False
    return takes_input_affine(layer, channel_axis(layer, rank), rank, bool(np.any(given.shift)))


def absorb_map(layer, weights: dict, given: AffineMap) -> None:
    """Changes `weights` to those of `layer(scale * x + shift)`."""
    if isinstance(layer, layers.EinsumDense):
        einsum.absorb_input(layer, weights, given)
    else:
        absorb_input(layer, weights, *given.vectors(input_channels(layer, weights)))


def input_channels(layer, weights: dict) -> int:
    """How many channels a linear layer other than EinsumDense reads."""
    kernel = weights["depthwise_kernel" if isinstance(layer, SEPARABLE) else "kernel"]
    if isinstance(layer, TRANSPOSED):
        return kernel.shape[-1]
    return kernel.shape[-2] * (layer.groups if isinstance(layer, CONVOLUTIONS) else 1)


def absorb_output(layer, weights: dict, scale: np.ndarray, shift: np.ndarray) -> None:
    """Changes `weights` to those of `scale * layer(x) + shift`."""
    name = "pointwise_kernel" if isinstance(layer, SEPARABLE) else "kernel"
    kernel = weights[name]
    factor = scale.astype(kernel.dtype)
    if isinstance(layer, layers.EinsumDense):
        letters, letter = _einsum_letters(layer)
        shape = [1] * kernel.ndim
        shape[letters.index(letter)] = -1
        factor = factor.reshape(shape)
    elif isinstance(layer, DEPTHWISE):
        factor = factor.reshape(kernel.shape[-2:])  # (*size, in, multiplier)
    elif isinstance(layer, TRANSPOSED):
        factor = factor[:, None]  # (*size, out, in)
    weights[name] = kernel * factor
    if "bias" in weights:
        weights["bias"] = weights["bias"] * scale + shift


def absorb_input(layer, weights: dict, scale: np.ndarray, shift: np.ndarray) -> None:
    """Changes `weights` to those of `layer(scale * x + shift)`."""
    name = "depthwise_kernel" if isinstance(layer, SEPARABLE) else "kernel"
    kernel = weights[name]
    if isinstance(layer, TRANSPOSED):
        weights[name] = kernel * scale.astype(kernel.dtype)  # (*size, out, in)
        return
    shape: tuple = kernel.shape
    per_input: tuple = (-1, 1)
    if isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
        # (*size, in / groups, out): the outputs of a group see the inputs of that group alone.
        shape = (*kernel.shape[:-1], layer.groups, kernel.shape[-1] // layer.groups)
        per_input = (kernel.shape[-2], layer.groups, 1)
        scale, shift = (vector.reshape(layer.groups, -1).T for vector in (scale, shift))
    split = kernel.reshape(shape)
    weights[name] = (split * scale.astype(kernel.dtype).reshape(per_input)).reshape(kernel.shape)
    if "bias" not in weights or not np.any(shift):
        return
    outputs = kernel.shape[-1] * (
        kernel.shape[-2] if isinstance(layer, (*DEPTHWISE, *SEPARABLE)) else 1
    )
    added = (
        (split * shift.astype(kernel.dtype).reshape(per_input))
        .reshape(-1, outputs)
        .sum(0, dtype="float64")
    )
    if isinstance(layer, SEPARABLE):
        pointwise = weights["pointwise_kernel"]
        added = added @ pointwise.reshape(-1, pointwise.shape[-1])
    weights["bias"] = weights["bias"] + added


def _einsum_letters(layer) -> tuple[str, str]:
    """The letters of the kernel's axes, and that of the output's last axis (a dot where the
    equation leaves it open).
    """
    _, kernel, output = einsum.letters(layer)
    return kernel, output[-1]
