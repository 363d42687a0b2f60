"""Moves the weights of a model into the new one: by layer, never by position or name."""

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import layers, ops

from keras_ic.surgery import absorb
from keras_ic.surgery.graph import sublayers

if TYPE_CHECKING:
    from keras_ic.surgery.build import Parts
    from keras_ic.surgery.fold_plan import FoldPlan
    from keras_ic.surgery.plan import Plan


def transfer(plan: "Plan | FoldPlan", parts: "Parts") -> None:
    """Gives the new layers the weights that `plan.policy.weights` says."""
    changed = _absorbed(plan) if plan.policy.weights == "preserve" else {}
    for key, (old, new) in parts.layers.items():
        if not isinstance(old, layers.Layer):
            continue
        if key in changed:
            for weight in new.weights:
                weight.assign(np.broadcast_to(changed[key][weight.name], weight.shape))
        elif plan.policy.weights != "fresh":
            _copy(old, new)
        _copy_preprocessing(old, new)
    if plan.policy.weights == "preserve":
        _start_as_before(plan, parts)


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
    # A copy: JAX frees the arrays of a model that it trains or runs, which must not be those of the
    # other.
    taken.assign(ops.copy(given.value))


def _copy_preprocessing(old, new) -> None:
    """What preprocessing layers know of the data is not learned, and is copied always."""
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


def _absorbed(plan: "Plan | FoldPlan") -> dict[int, dict[str, Any]]:
    """The weights, by name, of every layer that absorbs a normalization."""
    changed: dict[int, dict[str, Any]] = {}
    fates = [
        plan.normalizations.fates[call.key]
        for _, call, _ in plan.graph.walk()
        if call.key in plan.normalizations.fates
    ]
    for target, absorb_into in (
        *(pair for fate in fates for pair in fate.absorptions),
        *plan.normalizations.last,
    ):
        if id(target) not in changed:
            values = changed[id(target)] = {
                weight.name: _at_least_float32(weight) for weight in target.weights
            }
            if id(target) in plan.normalizations.biased:
                values["bias"] = np.zeros(())  # Takes the shape of what is added, if anything is.
        absorb_into(changed[id(target)])
    return changed


def _at_least_float32(weight) -> np.ndarray:
    value = weight.numpy()
    return value.astype("float32") if value.dtype.itemsize < 4 else value


def _start_as_before(plan: "Plan | FoldPlan", parts: "Parts") -> None:
    """Affines and clips as what they replace, IC layers as identities at inference."""
    for _, call, _ in plan.graph.walk():
        fate = plan.normalizations.fates.get(call.key)
        if fate is not None and fate.is_replaced:
            affine = parts.affines[plan.affine_key(call)][1]
            affine.shift.assign(fate.shift)
            if affine.use_scale:
                affine.scale.assign(fate.scale)
    for clip, layer in parts.clips.values():
        layer.lower.assign(clip.lower)
        if layer.use_upper:
            layer.upper.assign(clip.upper)
    for _, ic in parts.ics.values():
        ic.gamma.assign(np.sqrt(absorb.as_array(ic.moving_variance) + ic.epsilon))
        ic.beta.assign(absorb.as_array(ic.moving_mean))
