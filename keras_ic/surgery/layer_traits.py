"""What is known of Keras's layer classes: one record a class.

To support a new weight layer is to add one record to `TRAITS`, with the equation of its kernel, and
its tests. All else asks the table.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_ic.layers.channel_affine import ChannelAffine
from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.surgery.graph import Call


class Effect(enum.Enum):
    """What a layer or operation does to the values at inference."""

    LINEAR = "weighs channels with a kernel"
    IDENTITY = "hands them on"
    RESHAPE = "moves them, in their order"
    PERMUTE = "puts the axes in another order"
    ZERO_PADDING = "puts zeros around them"
    MEAN = "takes means, of each channel on its own, with weights that sum to 1"
    MAXIMUM = "takes maxima, of each channel on its own"
    SUM = "adds or subtracts tensors"
    CONCATENATION = "puts tensors side by side"
    NORMALIZATION = "normalizes"
    DISTRIBUTION = "makes shares that sum to 1"
    LOOKUP = "takes its input as indices or names"


@dataclasses.dataclass(frozen=True)
class Equation:
    """How a kernel maps the channels of its input to those of its output, as terms for the axes.

    A term is one letter, or several for an axis that several indices share, the slowest first. `.`
    stands for an axis, `...` for any number of axes that the kernel does not run along, `*` for the
    window of a convolution.

    Attributes:
        kernel: The name of the weight.
        inputs, axes, outputs: The terms of the input, the kernel and the output.
        sizes: The sizes of letters that the shape of the kernel does not tell.
    """

    kernel: str
    inputs: tuple[str, ...]
    axes: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)


def _channelwise(kernel: str, inputs: str, axes: tuple[str, ...], outputs: str) -> Callable:
    """The equation of a kernel that maps channels to channels, the same at every place."""

    def equation(layer) -> Equation:
        placed = (
            (lambda term: (".", term, "..."))
            if channels_first(layer)
            else (lambda term: ("...", term))
        )
        sizes = {"g": layer.groups} if "g" in inputs else {}
        return Equation(kernel, placed(inputs), axes, placed(outputs), sizes)

    return equation


def _of_einsum(layer) -> Equation:
    inputs, output = layer.equation.replace(" ", "").split("->")
    given, kernel = inputs.split(",")

    def terms(side: str) -> tuple[str, ...]:
        head, dots, tail = side.partition("...")
        return (*head, *([dots] if dots else []), *tail)

    return Equation("kernel", terms(given), terms(kernel), terms(output))


@dataclasses.dataclass(frozen=True)
class LayerTraits:
    """What is known of one class.

    Attributes:
        kind: The class.
        effect: What it does at inference.
        equations: Of a linear layer: functions of the layer, one for each kernel in the order in
            which they are applied.
        is_dense: Of a linear layer: whether every output meets all weights of its kernel. Those of
            a transposed convolution near the border and between strides do not.
    """

    kind: Any
    effect: Effect
    equations: tuple[Callable[[Any], Equation], ...] = ()
    is_dense: bool = True


def _of_ranks(kinds: str, ranks: tuple[int, ...] = (1, 2, 3)) -> tuple:
    return tuple(getattr(layers, f"{kind}{rank}D") for kind in kinds.split() for rank in ranks)


def _all(effect: Effect, *kinds: type, **more: Any) -> tuple[LayerTraits, ...]:
    return tuple(LayerTraits(kind, effect, **more) for kind in kinds)


_CONVOLUTION = _channelwise("kernel", "gi", ("*", "i", "go"), "go")
_TRANSPOSED = _channelwise("kernel", "i", ("*", "o", "i"), "o")
_DEPTHWISE = _channelwise("kernel", "i", ("*", "i", "m"), "im")
_SEPARABLE = (
    _channelwise("depthwise_kernel", "i", ("*", "i", "m"), "im"),
    _channelwise("pointwise_kernel", "i", ("*", "i", "o"), "o"),
)
_TRANSPOSES = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
TRAITS = (
    *_all(Effect.LINEAR, layers.Dense, equations=(_channelwise("kernel", "i", ("i", "o"), "o"),)),
    *_all(Effect.LINEAR, layers.EinsumDense, equations=(_of_einsum,)),
    *_all(Effect.LINEAR, *_of_ranks("Conv"), equations=(_CONVOLUTION,)),
    *_all(Effect.LINEAR, *_TRANSPOSES, equations=(_TRANSPOSED,), is_dense=False),
    *_all(Effect.LINEAR, *_of_ranks("DepthwiseConv", (1, 2)), equations=(_DEPTHWISE,)),
    *_all(Effect.LINEAR, *_of_ranks("SeparableConv", (1, 2)), equations=_SEPARABLE),
    *_all(
        Effect.IDENTITY,
        layers.Dropout,
        *_of_ranks("SpatialDropout"),
        layers.AlphaDropout,
        layers.GaussianDropout,
        layers.GaussianNoise,
        layers.ActivityRegularization,
        layers.Identity,
    ),
    *_all(Effect.RESHAPE, layers.Flatten, layers.Reshape),
    *_all(Effect.PERMUTE, layers.Permute),
    *_all(Effect.ZERO_PADDING, *_of_ranks("ZeroPadding")),
    # In average pooling with padding, the padding does not count.
    *_all(Effect.MEAN, *_of_ranks("AveragePooling GlobalAveragePooling Cropping UpSampling")),
    *_all(Effect.MAXIMUM, *_of_ranks("MaxPooling GlobalMaxPooling")),
    *_all(Effect.SUM, layers.Add, layers.Subtract, layers.Average),
    *_all(Effect.CONCATENATION, layers.Concatenate),
    *_all(
        Effect.NORMALIZATION,
        layers.BatchNormalization,
        layers.LayerNormalization,
        layers.GroupNormalization,
        layers.UnitNormalization,
        layers.RMSNormalization,
    ),
    *_all(Effect.DISTRIBUTION, layers.Softmax),
    *_all(
        Effect.LOOKUP,
        layers.Embedding,
        layers.CategoryEncoding,
        layers.IntegerLookup,
        layers.StringLookup,
        layers.TextVectorization,
        layers.Hashing,
        layers.HashedCrossing,
    ),
)
# The op nodes of `keras.ops` have no public classes; `x + y` is an `Add`.
OPERATIONS = {
    "Add": Effect.SUM,
    "Subtract": Effect.SUM,
    "Concatenate": Effect.CONCATENATION,
    "Reshape": Effect.RESHAPE,
    "Pad": Effect.ZERO_PADDING,
    "Transpose": Effect.PERMUTE,
    "Mean": Effect.MEAN,
    "Squeeze": Effect.RESHAPE,
    "ExpandDims": Effect.RESHAPE,
    "Softmax": Effect.DISTRIBUTION,
}
_BY_KIND = {traits.kind: traits for traits in TRAITS}
WEIGHT_LAYERS = tuple(traits.kind for traits in TRAITS if traits.effect is Effect.LINEAR)
ZERO_PADDING = tuple(traits.kind for traits in TRAITS if traits.effect is Effect.ZERO_PADDING)
NORMALIZATIONS = tuple(traits.kind for traits in TRAITS if traits.effect is Effect.NORMALIZATION)


def traits_of(layer) -> LayerTraits | None:
    """The record of the layer's class, or of the one it is derived from if `call` is left as it is:
    a subclass with a `call` of its own may do anything.
    """
    kind: Any = next((kind for kind in type(layer).__mro__ if kind in _BY_KIND), None)
    return _BY_KIND[kind] if kind and type(layer).call is kind.call else None


def effect_of(call: Call) -> Effect | None:
    """What a call does to its values at inference; None where nothing is known."""
    operation = call.operation
    if isinstance(operation, layers.Activation) and traits_of(operation) is None:
        own_call = type(operation).call is not layers.Activation.call
        return None if own_call else _effect_of_activation(operation.activation)
    if isinstance(operation, layers.Layer):
        traits = traits_of(operation)
        return traits.effect if traits else None
    effect = next((OPERATIONS[name] for name in OPERATIONS if is_op_node(operation, name)), None)
    if effect is Effect.ZERO_PADDING:
        values = [*call.args[1:], *call.kwargs.values()]
        if operation.mode != "constant" or any(
            isinstance(value, keras.KerasTensor) or value for value in values
        ):
            return None
    return effect


def _effect_of_activation(activation) -> Effect | None:
    if activation is keras.activations.linear:
        return Effect.IDENTITY
    return Effect.DISTRIBUTION if activation is keras.activations.softmax else None


def is_op_node(operation, *names: str) -> bool:
    """Whether it is an op node of `keras.ops` of one of these names."""
    kind = type(operation)
    return (
        not isinstance(operation, layers.Layer)
        and kind.__module__.startswith("keras.")
        and kind.__name__ in names
    )


def equations_of(layer) -> tuple[Equation, ...]:
    """The equations of a linear layer's kernels, in the order in which they are applied."""
    traits = traits_of(layer)
    return tuple(equation(layer) for equation in traits.equations) if traits else ()


def is_linear(layer) -> bool:
    """Whether it is one of Keras's own linear layers, the class itself, whose kernel is its only
    kernel.
    """
    return (
        type(layer) in WEIGHT_LAYERS
        and layer.quantization_mode is None
        and not getattr(layer, "lora_enabled", False)
    )


def constraints_of(layer) -> list[str]:
    """The names of the constraints that hold weights of the layer."""
    return [name for name in vars(layer) if name.endswith("_constraint") and vars(layer)[name]]


def is_regularized(layer) -> bool:
    """Whether the loss has a penalty on weights of the layer."""
    return any(name.endswith("_regularizer") and vars(layer)[name] for name in vars(layer))


def has_linear_activation(layer) -> bool:
    """Whether the layer has no fused activation."""
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def channels_first(layer) -> bool:
    """Whether the layer has its channels on axis 1."""
    return getattr(layer, "data_format", None) == "channels_first"


def channel_axis(layer, rank: int) -> int:
    """The axis, from 0, of the channels in a linear layer's input or output of this rank."""
    return 1 if channels_first(layer) else rank - 1


def unwrap(operation) -> Any:
    """The layer inside wrappers such as `TimeDistributed`, `Bidirectional` and
    `SpectralNormalization`; else itself.
    """
    while isinstance(operation, layers.Wrapper):
        operation = operation.layer
    if isinstance(operation, layers.Bidirectional):
        return operation.forward_layer
    return operation


def inside_time(operation) -> Any:
    """The layer inside `TimeDistributed`, once or several times; else itself. What other wrappers
    make of a layer is not known.
    """
    while type(operation) is layers.TimeDistributed or (
        isinstance(operation, layers.TimeDistributed)
        and type(operation).call is layers.TimeDistributed.call
    ):
        operation = operation.layer
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
    return effect_of(call) is Effect.ZERO_PADDING


def is_reshape(call: Call) -> bool:
    """Whether the call is a Flatten or a Reshape."""
    return effect_of(call) is Effect.RESHAPE and not is_op_node(
        call.operation, "Squeeze", "ExpandDims"
    )


def is_shape_step(call: Call) -> bool:
    """Whether the call only moves values or puts zeros around them."""
    return is_plain(call) and (is_reshape(call) or is_zero_padding(call))


def is_identity_at_inference(call: Call) -> bool:
    """Whether the call gives back its input at inference: dropout, noise, a linear activation."""
    return is_plain(call) and effect_of(call) is Effect.IDENTITY


def moved_axes(call: Call) -> list[int] | None:
    """For a call that only puts the axes in another order, the input's axis that each axis of its
    output is; None for any other.
    """
    if effect_of(call) is not Effect.PERMUTE:
        return None
    if isinstance(call.operation, layers.Permute):
        return [0, *call.operation.dims]
    rank, axes = len(call.outputs[0].shape), call.operation.axes
    return [axis % rank for axis in (axes if axes is not None else range(rank)[::-1])]


def gives_distribution(call: Call) -> bool:
    """Whether the outputs of the call are shares that sum to 1: a softmax, be it fused."""
    if effect_of(call) is Effect.DISTRIBUTION:
        return True
    activation = getattr(inside_time(call.operation), "activation", None)
    return activation is keras.activations.softmax


def dropout_of(call: Call) -> layers.Dropout | None:
    """The Dropout that the call is of, if it drops single values, in training alone."""
    layer = call.operation
    is_stock = isinstance(layer, layers.Dropout) and type(layer).call is layers.Dropout.call
    return layer if is_stock and is_plain(call) and layer.noise_shape is None else None


def is_noise(call: Call) -> bool:
    """Whether the call adds noise in training: a dropout of any kind."""
    quiet = (layers.Identity, layers.ActivityRegularization, layers.Activation)
    return (
        is_identity_at_inference(call)
        and not isinstance(call.operation, quiet)
        and getattr(call.operation, "rate", 1) != 0
    )


def keeps_shifts(call: Call) -> bool:
    """Whether a bias before the call does the work of one after it, but for borders."""
    effect = effect_of(call)
    mixes = (Effect.LINEAR, Effect.NORMALIZATION, Effect.DISTRIBUTION, Effect.LOOKUP)
    return effect is not None and effect not in mixes


def is_batch_normalization(operation) -> bool:
    """Whether it is a BatchNormalization, be it inside `TimeDistributed`."""
    return isinstance(inside_time(operation), layers.BatchNormalization)


def is_ic(operation) -> bool:
    """Whether it is an IC layer, be it inside `TimeDistributed`."""
    return isinstance(inside_time(operation), IndependentComponent)


def is_learned(operation) -> bool:
    """Whether it has weights that are learned and do more than normalize: what comes after it is no
    raw input any more.
    """
    if not isinstance(operation, layers.Layer) or not operation.weights:
        return False
    return not isinstance(
        unwrap(operation),
        (*NORMALIZATIONS, layers.Normalization, IndependentComponent, ChannelAffine),
    )
