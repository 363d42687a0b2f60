"""Moves the weights of a model into the new one: by layer, never by position or name."""

import dataclasses
import tempfile
from typing import Any

import numpy as np
from keras import layers, ops

from keras_ic.surgery.edits import Clip, Edits, Insertion
from keras_ic.surgery.linear_folding import as_array
from keras_ic.utils.keras_internals import sublayers


@dataclasses.dataclass
class Parts:
    """The new layers by the old ones.

    `layers`, `models` and `name_holders` as pairs by the id of the old one, `ics` by insertion,
    `affines` by the key of the edits, `clips` by call.
    """

    layers: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    models: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    ics: dict[int, tuple[Insertion, Any]] = dataclasses.field(default_factory=dict)
    affines: dict[Any, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    clips: dict[int, tuple[Clip, Any]] = dataclasses.field(default_factory=dict)
    name_holders: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)


def transfer(edits: Edits, parts: Parts) -> None:
    """Gives the new layers the weights that `edits.weights` says."""
    changed = _absorbed(edits) if edits.weights == "preserve" else {}
    for key, (old, new) in parts.layers.items():
        if not isinstance(old, layers.Layer):
            continue
        if key in changed:
            for weight in new.weights:
                weight.assign(np.broadcast_to(changed[key][weight.name], weight.shape))
        elif edits.weights != "fresh":
            _copy(old, new)
        _copy_preprocessing(old, new)
    if edits.weights == "preserve":
        _start_as_before(edits, parts)


def paired_weights(old, new) -> list[tuple]:
    """The weights of a layer, each with that of the copy which has its path; a copy may have more.

    Some layers reorder their weights once they are built: quantized ones, for one.
    """
    for key in (lambda weight: weight.path, lambda weight: weight.name):
        by_key = {key(weight): weight for weight in new.weights}
        if len(by_key) == len(new.weights) and all(key(weight) in by_key for weight in old.weights):
            return [(weight, by_key[key(weight)]) for weight in old.weights]
    return list(zip(old.weights, new.weights, strict=True))


def _copy(old, new) -> None:
    for given, taken in paired_weights(old, new):
        # A copy: JAX frees the arrays of a model that it trains or runs, which must not be those of
        # the other.
        taken.assign(ops.copy(given.value))


def _copy_preprocessing(old, new) -> None:
    """What preprocessing layers know of the data is not learned, and is copied always, as the
    layers themselves save and load it.
    """
    for given, taken in zip(sublayers(old), sublayers(new), strict=True):
        if not (hasattr(given, "adapt") or hasattr(given, "save_assets")):
            continue
        store: dict = {}
        given.save_own_variables(store)
        if store:
            taken.load_own_variables({key: np.array(value) for key, value in store.items()})
        if hasattr(given, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                given.save_assets(folder)
                taken.load_assets(folder)


def _absorbed(edits: Edits) -> dict[int, dict[str, Any]]:
    """The weights, by name, of every layer that absorbs a normalization."""
    changed: dict[int, dict[str, Any]] = {}
    for target, absorb_into in edits.absorptions():
        if id(target) not in changed:
            values = changed[id(target)] = {
                weight.name: _at_least_float32(weight) for weight in target.weights
            }
            if id(target) in edits.biased:
                values["bias"] = np.zeros(())  # Takes the shape of what is added, if anything is.
        absorb_into(changed[id(target)])
    return changed


def _at_least_float32(weight) -> np.ndarray:
    value = weight.numpy()
    return value.astype("float32") if value.dtype.itemsize < 4 else value


def _start_as_before(edits: Edits, parts: Parts) -> None:
    """Affines and clips as what they replace, IC layers as identities at inference."""
    for call, _, fold in edits.decided():
        if fold.is_replaced:
            affine = parts.affines[edits.affine_key(call)][1]
            affine.shift.assign(fold.shift)
            if affine.use_scale:
                affine.scale.assign(fold.scale)
    for clip, layer in parts.clips.values():
        layer.lower.assign(clip.lower)
        if layer.use_upper:
            layer.upper.assign(clip.upper)
    for _, ic in parts.ics.values():
        ic.gamma.assign(np.sqrt(as_array(ic.moving_variance) + ic.epsilon))
        ic.beta.assign(as_array(ic.moving_mean))
