"""What a folding would do to a model: decided by `keras_ic.surgery.folding`, shown here, carried
out by `keras_ic.surgery.build`.
"""

from typing import Any

import keras
import numpy as np

from keras_ic.surgery import absorb
from keras_ic.surgery.flops import flops
from keras_ic.surgery.folding import Folding, foldable
from keras_ic.surgery.graph import Call, Graph, is_readable, read_to_change, sublayers
from keras_ic.surgery.kinds import inside_time, is_ic
from keras_ic.surgery.normalization import (
    AFFINE,
    AFTER,
    BEFORE,
    CARRIED,
    CLIPPED,
    DROPPED,
    KEPT,
    MERGED,
    NAME_STAYS,
    SHIFT,
    SIGNED,
    Fate,
    inference_affine,
)
from keras_ic.surgery.policy import checked_policy
from keras_ic.surgery.rows import Change, Listing, Skip
from keras_ic.surgery.sites import Sites, taken_names, unique_name


class FoldPlan(Listing):
    """What `keras_ic.fold` would do to a model. Prints as a table.

    Attributes:
        model: The given model.
        changes: List of `Change`, in the order in which the model runs.
        skipped: List of `Skip`: normalizations that stay, and layers with normalizations inside
            that cannot be seen.
        parameters: `(before, after)`, numbers of weights, moving statistics included.
        flops: `(before, after)`, floating-point operations of inference on one sample: a
            multiplication and an addition are two; weight layers and normalizations are counted;
            sizes that the model leaves open count as 1.
        untrained: List of the paths of the IC and BatchNormalization layers whose moving statistics
            are as initialized.
    """

    def __init__(self, graph: Graph):
        super().__init__(graph.model)
        self.graph = graph
        folding = Folding(graph)
        self.normalizations, self.clips, self.unfused = (
            folding.normalizations,
            folding.clips,
            folding.unfused,
        )
        self.named = self.normalizations.keep_their_names(graph)
        # What the builder also asks for: no new IC layers, and all weights as they are.
        self.sites = Sites([], {}, {})
        self.policy = checked_policy(
            0.0,
            weights="preserve",
            normalization="remove",
            skip_first=True,
            skip=None,
            weight_layers=(),
            share=True,
            bias="repair",
        )
        self.affine_names: dict[Any, str] = {}
        self.untrained: list[str] = []
        self._name()
        self._fill_rows()
        self.parameters = (
            self.model.count_params(),
            self.model.count_params() + self._added_parameters(),
        )
        self.flops = (flops(graph), flops(graph, self))

    def affine_key(self, call: Call) -> Any:
        """Tells the affines apart: one for all calls of a normalization that compute the same."""
        fate = self.normalizations.fates[call.key]
        return id(call.operation), fate.how, fate.scale.tobytes(), fate.shift.tobytes()

    def _name(self) -> None:
        taken = taken_names(self.graph)
        for _, call, _ in self.graph.walk():
            fate = self.normalizations.fates.get(call.key)
            if (
                fate is not None
                and fate.is_replaced
                and self.affine_key(call) not in self.affine_names
            ):
                wanted = f"{call.operation.name}_{'affine' if fate.how == AFFINE else 'shift'}"
                self.affine_names[self.affine_key(call)] = unique_name(wanted, taken)
            if call.key in self.clips:
                self.clips[call.key].name = unique_name(f"{call.operation.name}_clip", taken)

    def _fill_rows(self) -> None:
        biased = dict(self.normalizations.biased)
        listed: set[int] = set()
        for graph, call, path in self.graph.walk():
            operation = call.operation
            kind = type(inside_time(operation)).__name__
            fate = self.normalizations.fates.get(call.key)
            if biased.pop(id(operation), None) is not None:
                self.changes.append(Change(path, kind, "bias", "gets a bias"))
            if call.key in self.clips:
                clip = self.clips[call.key]
                result = (
                    f"{'its ReLU ' if clip.is_fused else ''}becomes {clip.name}, with bounds of"
                    " each channel's own"
                )
                self.changes.append(Change(path, kind, "activation", result, clip.name))
            if fate is not None:
                self._fill_fate(call, fate, path, kind)
            elif (
                id(operation) not in listed
                and graph.child(call) is None
                and isinstance(operation, keras.layers.Layer)
            ):
                hidden = sum(foldable(part) is not None for part in sublayers(operation))
                if hidden:
                    why = (
                        "called with training=True"
                        if is_readable(operation)
                        else "what happens inside cannot be seen"
                    )
                    self.skipped.append(
                        Skip(path, kind, f"stays, and the {hidden} normalizations in it: {why}")
                    )
            listed.add(id(operation))

    def _fill_fate(self, call: Call, fate: Fate, path: str, kind: str) -> None:
        layer = foldable(call.operation)
        if fate.how == KEPT:
            self.skipped.append(
                Skip(
                    path,
                    kind,
                    fate.reason if fate.reason.startswith("stays") else f"stays: {fate.reason}",
                )
            )
            return
        name = self.affine_names[self.affine_key(call)] if fate.is_replaced else None
        targets = ", ".join(target.name for target in fate.targets)
        result = {
            DROPPED: "removed: the identity at inference",
            BEFORE: f"folded into {targets}",
            AFTER: f"folded into {targets}",
            MERGED: f"merged with {targets}",
            CLIPPED: f"folded into {targets}, through the ReLU between",
            SIGNED: f"folded into {targets}, of which the first takes all but the signs",
            CARRIED: f"folded into {targets}, the shift along the residual stream",
            SHIFT: f"scale folded into {targets}; shift stays as {name}: {fate.reason}",
            AFFINE: f"becomes {name}: {fate.reason}",
        }[fate.how]
        result += NAME_STAYS if call.key in self.named else ""
        role = (
            "dropout"
            if layer is None
            else "ic"
            if is_ic(layer)
            else "normalization"
            if _has_statistics(layer)
            else "affine"
        )
        self.changes.append(Change(path, kind, role, result, name))
        if _has_statistics(layer) and _is_untrained(layer):
            self.untrained.append(path)

    def _added_parameters(self) -> int:
        added = 0
        kept: dict[int, tuple[Any, bool]] = {}
        biased, named = dict(self.normalizations.biased), set()
        for _, call, _ in self.graph.walk():
            operation, fate = call.operation, self.normalizations.fates.get(call.key)
            if fate is not None:
                kept[id(operation)] = (
                    operation,
                    fate.how == KEPT or kept.get(id(operation), (None, False))[1],
                )
                if fate.is_replaced and self.affine_key(call) not in named:
                    named.add(self.affine_key(call))
                    added += fate.shift.size * (2 if fate.how == AFFINE else 1)
            if call.key in self.clips:
                clip = self.clips[call.key]
                added += clip.lower.size * (1 if clip.upper is None else 2)
            if biased.pop(id(operation), None) is not None:
                added += absorb.size_of_new_bias(operation, call.outputs[0].shape)
        return added - sum(
            operation.count_params() for operation, stays in kept.values() if not stays
        )


def plan_fold(model: keras.Model) -> FoldPlan:
    """Says what `keras_ic.fold` would do to a model, without doing it.

    Args:
        model: A Sequential or Functional model, built. It is not changed.

    Returns:
        A `FoldPlan`. `print(plan)` shows it as a table; `plan.changes` and `plan.skipped` are its
        rows, `plan.to_dict()` is the same as JSON values.

    Raises:
        ValueError: For a subclassed or unbuilt model.

    Example:

    ```python
    import keras
    import keras_ic
    from keras_ic.surgery import plan_fold

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, padding="same", name="conv1"),
            keras.layers.ReLU(name="relu1"),
            keras_ic.IC(name="ic"),
            keras.layers.Conv2D(5, 3, padding="same", name="conv2"),
        ]
    )
    model.get_layer("ic").beta.assign([0.1, 0.2, 0.3, 0.4])  # stands for training
    results = {change.layer: change.result for change in plan_fold(model).changes}
    assert results["ic"] == "folded into conv1, through the ReLU between"
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
    """
    return FoldPlan(read_to_change(model))


def _has_statistics(layer) -> bool:
    return hasattr(layer, "moving_variance")


def _is_untrained(layer) -> bool:
    """Whether its moving statistics are as initialized although it is not the identity, as it is
    after `rewrite(..., weights="preserve")`.
    """
    if (
        absorb.as_array(layer.moving_mean).any()
        or (absorb.as_array(layer.moving_variance) != 1).any()
    ):
        return False
    scale, shift = inference_affine(layer)
    return bool(np.any(np.abs(scale - 1) > 1e-6) or np.any(shift))
