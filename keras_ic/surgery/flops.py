"""Floating-point operations of a model at inference, before and after, counted from shapes.

A multiplication and an addition count as two. Weight layers and normalizations are counted,
activations, pooling and the like are not. The batch, and every size that the model leaves open,
counts as 1.
"""

import math
from typing import TYPE_CHECKING

from keras import layers

from keras_ic.surgery import absorb
from keras_ic.surgery.affine import Affine
from keras_ic.surgery.graph import Call, Graph
from keras_ic.surgery.kinds import (
    CONVOLUTIONS,
    DEPTHWISE,
    SEPARABLE,
    TRANSPOSED,
    is_batch_normalization,
    is_ic,
    unwrap,
)
from keras_ic.surgery.normalization import AFFINE, KEPT, SHIFT

if TYPE_CHECKING:
    from keras_ic.surgery.fold_plan import FoldPlan
    from keras_ic.surgery.plan import Plan


def flops(graph: Graph, plan: "Plan | FoldPlan | None" = None) -> int:
    """The operations of one run of the model; of the model as `plan` would have it, if given."""
    total = 0
    for call in graph.calls:
        child = graph.child(call)
        if child is not None:
            total += flops(child, plan)
        elif (
            is_batch_normalization(call.operation)
            or is_ic(call.operation)
            or isinstance(call.operation, Affine)
        ):
            fate = plan.normalizations.fates.get(call.key) if plan else None
            total += {AFFINE: 2, KEPT: 2, SHIFT: 1}.get(fate.how if fate else KEPT, 0) * size(
                call.outputs[0]
            )
        elif isinstance(call.operation, layers.Layer):
            total += weight_layer_flops(call)
            if plan and id(call.operation) in plan.normalizations.biased:
                total += size(call.outputs[0])
    if plan:
        own = {
            id(tensor)
            for tensor in (
                *graph.inputs,
                *(output for call in graph.calls for output in call.outputs),
            )
        }
        total += sum(
            2 * size(insertion.tensor)
            for insertion in plan.sites.insertions
            if id(insertion.tensor) in own
        )
    return total


def weight_layer_flops(call: Call) -> int:
    """The operations of one call of a weight layer; 0 for every other layer."""
    layer = unwrap(call.operation)
    outputs = size(call.outputs[0]) if call.outputs else 0
    if isinstance(layer, layers.Dense):
        per_output = layer.kernel.shape[0]
    elif isinstance(layer, layers.EinsumDense):
        letters, output = layer.equation.replace(" ", "").split(",")[1].split("->")
        per_output = math.prod(
            length
            for letter, length in zip(letters, layer.kernel.shape, strict=True)
            if letter not in output
        )
    elif isinstance(layer, CONVOLUTIONS):
        per_output = math.prod(layer.kernel.shape[:-1])
    elif isinstance(layer, TRANSPOSED):
        return (
            2 * size(call.inputs[0]) * math.prod(layer.kernel.shape[:-1]) + layer.use_bias * outputs
        )
    elif isinstance(layer, DEPTHWISE):
        per_output = math.prod(layer.kernel_size)
    elif isinstance(layer, SEPARABLE):
        inner = layer.pointwise_kernel.shape[-2]
        return (
            2 * outputs // layer.filters * inner * math.prod(layer.kernel_size)
            + 2 * outputs * inner
            + layer.use_bias * outputs
        )
    else:
        return 0
    return 2 * outputs * per_output + absorb.has_bias(layer) * outputs


def size(tensor) -> int:
    """How many values the tensor holds for one sample, open sizes counted as 1."""
    return math.prod(length or 1 for length in tensor.shape[1:])
