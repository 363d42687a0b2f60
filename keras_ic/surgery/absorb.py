"""Absorbing a per-channel affine map into the weights of a linear layer: `scale * layer(x) + shift` and `layer(scale * x + shift)`.

Everything here is exact linear algebra in float64, on the weights as a dictionary by name (`kernel`, or `depthwise_kernel` and
`pointwise_kernel`, and `bias`), and knows nothing of graphs.
"""

import math

import numpy as np
from keras import layers

from keras_ic.surgery.kinds import CONVOLUTIONS, DEPTHWISE, SEPARABLE, TRANSPOSED, WEIGHT_LAYERS, channels_first, has_linear_activation


def as_array(variable) -> np.ndarray:
    """The value of a weight in float64."""
    return np.asarray(variable.numpy(), "float64")


def is_linear(layer) -> bool:
    """Whether it is one of Keras's own linear layers, the class itself, whose kernel is its only kernel."""
    return type(layer) in WEIGHT_LAYERS and layer.quantization_mode is None and not getattr(layer, "lora_enabled", False)


def has_bias(layer) -> bool:
    """Whether the linear layer has a bias."""
    return layer.bias_axes is not None if isinstance(layer, layers.EinsumDense) else bool(layer.use_bias)


def bias_changes(layer) -> dict:
    """What to change in the configuration of a bias-free linear layer so that it has a bias of one value an output channel."""
    if isinstance(layer, layers.EinsumDense):
        return {"bias_axes": layer.equation.split("->")[1][-1]}
    return {"use_bias": True}


def channel_axis(layer, rank: int) -> int:
    """The axis, from 0, of the channels in a linear layer's input or output of this rank."""
    return 1 if channels_first(layer) else rank - 1


def takes_output_affine(layer, axis: int, rank: int, with_shift: bool) -> bool:
    """Whether `scale * layer(x) + shift` along `axis` of an output of this rank is again such a layer, with a bias where it had none."""
    if not is_linear(layer) or not has_linear_activation(layer) or axis != channel_axis(layer, rank):
        return False
    if isinstance(layer, layers.EinsumDense):
        kernel, letter = _einsum_letters(layer)
        return letter in kernel and (layer.bias_axes is None or letter in layer.bias_axes)
    return True


def takes_input_affine(layer, axis: int, rank: int, with_shift: bool) -> bool:
    """Whether `layer(scale * x + shift)` along `axis` of an input of this rank is again such a layer.

    A shift is not, where the layer puts zeros around its input, for the zeros are not shifted; nor in transposed convolutions, whose outputs
    near the border, and between strides, meet fewer weights.
    """
    if not is_linear(layer) or isinstance(layer, layers.EinsumDense) or axis != channel_axis(layer, rank):
        return False
    if not with_shift or isinstance(layer, layers.Dense):
        return True
    return not isinstance(layer, TRANSPOSED) and (layer.padding == "valid" or math.prod(layer.kernel_size) == 1)


def absorb_output(layer, weights: dict, scale: np.ndarray, shift: np.ndarray) -> None:
    """Changes `weights` to those of `scale * layer(x) + shift`."""
    if isinstance(layer, layers.EinsumDense):
        letters, letter = _einsum_letters(layer)
        weights["kernel"] = weights["kernel"] * _along(scale, weights["kernel"].ndim, letters.index(letter))
    elif isinstance(layer, DEPTHWISE):
        kernel = weights["kernel"]
        weights["kernel"] = kernel * scale.reshape(kernel.shape[-2:])
    elif isinstance(layer, SEPARABLE):
        weights["pointwise_kernel"] = weights["pointwise_kernel"] * scale
    elif isinstance(layer, TRANSPOSED):
        weights["kernel"] = weights["kernel"] * scale[:, None]
    else:
        weights["kernel"] = weights["kernel"] * scale
    if "bias" in weights:
        weights["bias"] = weights["bias"] * scale + shift


def absorb_input(layer, weights: dict, scale: np.ndarray, shift: np.ndarray) -> None:
    """Changes `weights` to those of `layer(scale * x + shift)`."""
    name = "depthwise_kernel" if isinstance(layer, SEPARABLE) else "kernel"
    kernel = weights[name]
    if isinstance(layer, TRANSPOSED):
        weights[name] = kernel * scale  # (*size, out, in)
        return
    if isinstance(layer, (*DEPTHWISE, *SEPARABLE)):
        per_output = (
            (kernel * shift[:, None]).reshape(-1, kernel.shape[-2] * kernel.shape[-1]).sum(0)
        )  # (*size, in, multiplier) -> (in * multiplier,)
        weights[name] = kernel * scale[:, None]
        if isinstance(layer, SEPARABLE):
            pointwise = weights["pointwise_kernel"]
            per_output = per_output @ pointwise.reshape(-1, pointwise.shape[-1])
    elif isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
        # (*size, in / groups, out): the outputs of a group see the inputs of that group alone.
        per_group = kernel.reshape(*kernel.shape[:-1], layer.groups, -1)  # (*size, in / groups, groups, out / groups)
        scales, shifts = (vector.reshape(layer.groups, -1).T[:, :, None] for vector in (scale, shift))  # (in / groups, groups, 1)
        per_output = (per_group * shifts).reshape(-1, kernel.shape[-1]).sum(0)
        weights[name] = (per_group * scales).reshape(kernel.shape)
    else:
        per_output = (kernel * shift[:, None]).reshape(-1, kernel.shape[-1]).sum(0)
        weights[name] = kernel * scale[:, None]
    if "bias" in weights:
        weights["bias"] = weights["bias"] + per_output


def _einsum_letters(layer) -> tuple[str, str]:
    """The letters of the kernel's axes, and that of the output's last axis (a dot where the equation leaves it open)."""
    inputs, output = layer.equation.replace(" ", "").split("->")
    return inputs.split(",")[1], output[-1]


def _along(vector: np.ndarray, rank: int, axis: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)
