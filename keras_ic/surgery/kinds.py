"""What kinds of layers there are for the rewriting: weight layers, shape-only steps, steps that do
nothing at inference, and the rest.
"""

from typing import Any

import keras
from keras import layers

from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.surgery.affine import Affine
from keras_ic.surgery.graph import Call

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
WEIGHT_LAYERS = (
    layers.Dense,
    layers.EinsumDense,
    *CONVOLUTIONS,
    *TRANSPOSED,
    *DEPTHWISE,
    *SEPARABLE,
)

ZERO_PADDING = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
RESHAPING = (layers.Flatten, layers.Reshape)
DROPOUTS = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.Identity,
)
NORMALIZATIONS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.UnitNormalization,
    layers.RMSNormalization,
)
# Layers through which a constant added to a channel stays a constant added to a channel (but for
# borders): a bias before them and one behind them do the same work.
SHIFT_KEEPING = (
    layers.Add,
    layers.Subtract,
    layers.Average,
    layers.Concatenate,
    layers.Permute,
    *ZERO_PADDING,
    *RESHAPING,
    *DROPOUTS,
    *(
        getattr(layers, f"{kind}{rank}D")
        for kind in ("Cropping", "UpSampling", "MaxPooling", "AveragePooling")
        for rank in (1, 2, 3)
    ),
    *(
        getattr(layers, f"Global{kind}Pooling{rank}D")
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    ),
)
SHIFT_KEEPING_OPERATIONS = (
    "Add",
    "Subtract",
    "Concatenate",
    "Reshape",
    "Pad",
    "Transpose",
    "Mean",
    "Squeeze",
    "ExpandDims",
)


def is_keras_operation(operation, *names: str) -> bool:
    """Whether it is an op node of `keras.ops` of one of these names (`x + y` is an `Add`), which
    has no public class.
    """
    kind = type(operation)
    return (
        not isinstance(operation, layers.Layer)
        and kind.__module__.startswith("keras.")
        and kind.__name__ in names
    )


def is_computed_as(operation, kinds: tuple) -> bool:
    """Whether it is a layer of one of these classes, or of a subclass that leaves `call` as it is:
    one with a `call` of its own may do anything.
    """
    return any(isinstance(operation, kind) and type(operation).call is kind.call for kind in kinds)


def unwrap(operation) -> Any:
    """The layer inside wrappers such as `TimeDistributed`, `Bidirectional` and
    `SpectralNormalization`; else itself.
    """
    while isinstance(operation, layers.Wrapper):
        operation = operation.layer
    if isinstance(operation, layers.Bidirectional):
        return operation.forward_layer
    return operation


def time_axes(operation) -> int:
    """How many axes wrappers put before those of the layer inside."""
    count = 0
    while isinstance(operation, layers.Wrapper):
        count += isinstance(operation, layers.TimeDistributed)
        operation = operation.layer
    return count


def is_plain(call: Call) -> bool:
    """Whether it is one tensor in, one tensor out, with nothing said about `training`."""
    return len(call.inputs) == 1 and len(call.outputs) == 1 and not call.kwargs.get("training")


def is_zero_padding(call: Call) -> bool:
    """Whether the call only puts zeros around its input."""
    if is_computed_as(call.operation, ZERO_PADDING):
        return True
    if not is_keras_operation(call.operation, "Pad") or call.operation.mode != "constant":
        return False
    return all(
        not isinstance(value, keras.KerasTensor) and not value
        for value in [*call.args[1:], *call.kwargs.values()]
    )


def is_shape_step(call: Call) -> bool:
    """Whether the call only moves values or puts zeros around them."""
    reshapes = is_computed_as(call.operation, RESHAPING) or is_keras_operation(
        call.operation, "Reshape"
    )
    return is_plain(call) and (reshapes or is_zero_padding(call))


def moved_axes(call: Call) -> list[int] | None:
    """For a call that only puts the axes in another order, the input's axis that each axis of its
    output is; None for any other.
    """
    rank = len(call.outputs[0].shape) if call.outputs else 0
    if is_computed_as(call.operation, (layers.Permute,)):
        return [0, *call.operation.dims]
    if is_keras_operation(call.operation, "Transpose"):
        axes = call.operation.axes
        return [axis % rank for axis in (axes if axes is not None else range(rank)[::-1])]
    return None


def is_identity_at_inference(call: Call) -> bool:
    """Whether the call gives back its input at inference: dropout, noise, a linear activation."""
    operation = call.operation
    linear = (
        is_computed_as(operation, (layers.Activation,))
        and operation.activation is keras.activations.linear
    )
    return is_plain(call) and (is_computed_as(operation, DROPOUTS) or linear)


def keeps_shifts(call: Call) -> bool:
    """Whether a bias before the call does the work of one behind it."""
    if is_keras_operation(call.operation, *SHIFT_KEEPING_OPERATIONS):
        return True
    return is_computed_as(call.operation, SHIFT_KEEPING) or is_identity_at_inference(call)


def inside_time(operation) -> Any:
    """The layer inside `TimeDistributed`, once or several times; else itself. What other wrappers
    make of a layer is not known.
    """
    while is_computed_as(operation, (layers.TimeDistributed,)):
        operation = operation.layer
    return operation


def is_batch_normalization(operation) -> bool:
    """Whether it is a BatchNormalization, be it inside `TimeDistributed`."""
    return isinstance(inside_time(operation), layers.BatchNormalization)


def is_ic(operation) -> bool:
    """Whether it is an IC layer, be it inside `TimeDistributed`."""
    return isinstance(inside_time(operation), IndependentComponent)


def is_learned(operation) -> bool:
    """Whether it has weights that are learned and do more than normalize: what lies behind it is no
    raw input any more.
    """
    if not isinstance(operation, layers.Layer) or not operation.weights:
        return False
    return not isinstance(
        unwrap(operation), (*NORMALIZATIONS, layers.Normalization, IndependentComponent, Affine)
    )


def has_linear_activation(layer) -> bool:
    """Whether the layer has no fused activation."""
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def channels_first(layer) -> bool:
    """Whether the layer has its channels on axis 1."""
    return getattr(layer, "data_format", None) == "channels_first"
