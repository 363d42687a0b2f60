"""Moves the weights of a model into the new one: by layer, never by position or name in the model."""

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import layers, ops

from keras_ic.surgery import absorb
from keras_ic.surgery.graph import sublayers
from keras_ic.surgery.normalization import AFFINE, AFTER, BEFORE

if TYPE_CHECKING:
    from keras_ic.surgery.build import Parts
    from keras_ic.surgery.plan import Plan


def transfer(plan: "Plan", parts: "Parts") -> None:
    """Gives the new layers the weights that `plan.policy.weights` says."""
    pairs = [(old, new) for old, new in parts.layers.values() if isinstance(old, layers.Layer)]
    for old, new in pairs:
        if plan.policy.weights != "fresh":
            _copy(old, new)
        _copy_preprocessing(old, new)
    if plan.policy.weights == "preserve":
        _preserve(plan, parts)


def _copy(old, new) -> None:
    if len(old.weights) == len(new.weights):
        for given, taken in zip(old.weights, new.weights, strict=True):
            _assign(taken, given)
        return
    # The layer got a bias: its other weights have their old names.
    by_name = {weight.name: weight for weight in new.weights}
    for given in old.weights:
        _assign(by_name[given.name], given)


def _assign(taken, given) -> None:
    # A copy: JAX frees the arrays of a model that it trains or runs, which must not be those of the other.
    taken.assign(ops.copy(given.value))


def _copy_preprocessing(old, new) -> None:
    """What preprocessing layers know of the data is no weight to be learned, and is copied always."""
    for given, taken in zip(sublayers(old), sublayers(new), strict=True):
        if isinstance(given, layers.Normalization) and given.built:
            for source, target in zip(given.weights, taken.weights, strict=True):
                _assign(target, source)
            if given.input_mean is None:
                taken.finalize_state()
        elif hasattr(given, "save_assets") and hasattr(taken, "load_assets"):
            with tempfile.TemporaryDirectory() as folder:
                given.save_assets(folder)
                taken.load_assets(folder)


def _preserve(plan: "Plan", parts: "Parts") -> None:
    changed: dict[int, dict[str, Any]] = {}
    for _, call, _ in plan.graph.walk():
        fate = plan.normalizations.fates.get(call.key)
        if fate is None:
            continue
        if fate.how == AFFINE:
            affine = parts.affines[id(call.operation)][1]
            affine.scale.assign(fate.scale)
            affine.shift.assign(fate.shift)
        elif fate.how in (BEFORE, AFTER):
            for target in fate.targets:
                values = changed.setdefault(id(target), _as_arrays(parts.layers[id(target)][1]))
                (absorb.absorb_output if fate.how == BEFORE else absorb.absorb_input)(target, values, fate.scale, fate.shift)
    for key, values in changed.items():
        for weight in parts.layers[key][1].weights:
            weight.assign(values[weight.name])
    for _, ic in parts.ics.values():
        # The identity at inference.
        ic.gamma.assign(np.sqrt(absorb.as_array(ic.moving_variance) + ic.epsilon))
        ic.beta.assign(absorb.as_array(ic.moving_mean))


def _as_arrays(layer) -> dict[str, Any]:
    return {weight.name: absorb.as_array(weight) for weight in layer.weights}
