"""What an IC layer refuses, and what it warns of."""

import math
import warnings

import keras

from keras_ic.kernels.recomputation import recomputing
from keras_ic.utils.validation import checked_bool, checked_int, positive_int

HIGH_RATE = 0.5
_told_of_high_rate = False
KEEP_PROBABILITY = frozenset({"p", "keep_prob", "keep_probability"})


def check_no_keep_probability(arguments):
    """Answers a keep probability with the rate that it means."""
    for name in KEEP_PROBABILITY.intersection(arguments):
        raise ValueError(
            f"`{name}` is no argument of IC, which takes the probability to drop a value:"
            f" `rate` is 1 minus the keep probability. Use {_conversion(arguments[name])}."
            f" Received: {name}={arguments[name]!r}"
        )


def _conversion(keep):
    return f"rate={1 - keep:.6g}" if isinstance(keep, (int, float)) else "rate=1 - keep probability"


def warn_of_high_rate(rate):
    """Tells once that a rate is no keep probability."""
    global _told_of_high_rate
    if rate >= HIGH_RATE and not _told_of_high_rate:
        _told_of_high_rate = True
        warnings.warn(
            f"`rate` is the probability to drop a value, and {rate:g} drops much; the paper's range"
            f" is 0.03 to 0.10. If a keep probability of {rate:g} was meant, use"
            f" rate={1 - rate:.6g}. This is said once. Received: rate={rate:g}",
            stacklevel=3,
        )


def checked_axis(axis):
    """`axis`, if it can be one."""
    return checked_int("axis", axis, "an integer, the channel axis")


def checked_synchronized(synchronized):
    """`synchronized`, if the backend has it."""
    if checked_bool("synchronized", synchronized) and keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`synchronized=True` needs the TensorFlow backend; leave it False elsewhere (under"
            " `keras.distribution`, JAX's statistics are those of the global batch anyway)."
            f" Received: synchronized=True with the backend {keras.backend.backend()!r}"
        )
    return bool(synchronized)


def checked_noise_shape(noise_shape):
    """`noise_shape` as None or a tuple."""
    if noise_shape is None:
        return None
    if not isinstance(noise_shape, (tuple, list)):
        raise ValueError(
            "`noise_shape` must be None or a tuple of positive integers and None. Received:"
            f" noise_shape={noise_shape!r} (of type {type(noise_shape).__name__})"
        )
    return tuple(
        None if size is None else positive_int("noise_shape", size) for size in noise_shape
    )


def checked_channels(layer, input_shape):
    """The number of channels of inputs of this shape."""
    rank = len(input_shape)
    if rank < 2:
        raise ValueError(
            f"{layer.name} needs inputs of rank 2 or more, (batch, ..., channels). Received:"
            f" input shape {tuple(input_shape)}"
        )
    if not -rank <= layer.axis < rank:
        raise ValueError(
            f"`axis` of {layer.name} must be in [{-rank}, {rank - 1}] for inputs of rank {rank}."
            f" Received: axis={layer.axis} with input shape {tuple(input_shape)}"
        )
    if any(isinstance(size, (tuple, list)) for size in input_shape):
        raise ValueError(
            f"{layer.name} normalizes one tensor; give each of several a layer of its own."
            f" Received: input shapes {input_shape}"
        )
    channels = input_shape[layer.axis]
    if channels is None:
        raise ValueError(
            f"The size of the channel axis of {layer.name} must be known when it is built; give"
            f" it to `keras.Input`, or choose another `axis`. Received: axis={layer.axis} with"
            f" input shape {tuple(input_shape)}"
        )
    if layer.noise_shape is not None:
        fits = len(layer.noise_shape) == rank and all(
            wanted in (None, 1) or size in (None, wanted)
            for wanted, size in zip(layer.noise_shape, input_shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`noise_shape` of {layer.name} must have one entry an axis of the inputs: None,"
                f" 1 or the size of that axis. Received: noise_shape={layer.noise_shape} with"
                f" input shape {tuple(input_shape)}"
            )
    return channels


def check_inputs(layer, inputs, mask, learning):
    """Refuses inputs and masks before anything changes."""
    if learning and "Ragged" in type(inputs).__name__:
        raise ValueError(
            "In training, the inputs must be dense; call their `to_tensor()`, and give the layer a"
            f" mask of the positions that count. Received: inputs of type {type(inputs).__name__}"
        )
    shape = tuple(inputs.shape)
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"{layer.name} needs inputs of floats; cast them first, as with `keras.ops.cast(x,"
            f' "float32")`. Received: dtype {dtype}'
        )
    if 0 in shape:
        raise ValueError(
            f"{layer.name} needs at least one value to normalize. Received: inputs of shape {shape}"
        )
    if mask is not None:
        given = tuple(mask.shape)
        if not 0 < len(given) < len(shape) or any(
            a not in (None, 1) and b is not None and a != b
            for a, b in zip(given, shape[:-1], strict=False)
        ):
            raise ValueError(
                f"The mask of {layer.name} must have the shape of the inputs without the last"
                f" axis, {shape[:-1]}, or of its first axes. Received: mask of shape {given}"
            )
    if (
        learning
        and not layer.synchronized
        and None not in shape
        and math.prod(shape) == shape[layer.axis]
    ):
        warnings.warn(
            f"{layer.name} is trained on a single value a channel: its variance is zero and its"
            " normalized value is zero whatever the input. Use a larger batch. Received:"
            f" inputs of shape {shape}",
            stacklevel=2,
        )


def check_single_pass(layer):
    """Refuses a call that repeats a forward pass for its gradient."""
    if recomputing():
        raise ValueError(
            f"{layer.name} cannot run a second time in the backward pass: it would draw another"
            " mask and count its statistics twice. Leave it outside of what"
            " `tf.recompute_grad`, `torch.utils.checkpoint` or `keras.remat` recomputes; the"
            " weight layers between hold most of the memory. Received: a call from the"
            " recomputation of gradients"
        )
