"""What a rewriting would do: decided here, carried out by `keras_ic.surgery.build`."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_ic.surgery import absorb
from keras_ic.surgery.flops import flops
from keras_ic.surgery.graph import Call, Graph, is_readable, read_to_change, sublayers
from keras_ic.surgery.kinds import (
    NORMALIZATIONS,
    inside_time,
    is_batch_normalization,
    is_ic,
    unwrap,
)
from keras_ic.surgery.normalization import (
    AFFINE,
    AFTER,
    BEFORE,
    DROPPED,
    KEPT,
    NAME_STAYS,
    Normalizations,
    decide_normalizations,
)
from keras_ic.surgery.policy import Policy, Site, checked_policy
from keras_ic.surgery.rows import Change, Listing, Skip
from keras_ic.surgery.sites import Sites, decide_sites, is_weight_layer, taken_names, unique_name


class Plan(Listing):
    """What `keras_ic.rewrite` would do to a model. Prints as a table.

    Attributes:
        model: The given model.
        changes: List of `Change`, in the order in which the model runs.
        skipped: List of `Skip`: weight layers that get no IC layer, normalizations that stay, and
            layers whose weights the rewriting does not know.
        parameters: `(before, after)`, numbers of weights, moving statistics included.
        flops: `(before, after)`, floating-point operations of inference on one sample: a
            multiplication and an addition are two; weight layers and normalizations are counted;
            sizes that the model leaves open count as 1.
    """

    def __init__(self, graph: Graph, policy: Policy, normalizations: Normalizations, sites: Sites):
        super().__init__(graph.model)
        self.graph = graph
        self.policy = policy
        self.normalizations = normalizations
        self.sites = sites
        self.clips: dict[int, Any] = {}  # What the builder also asks for, and only a folding has.
        self.unfused: set[int] = set()
        self.named = normalizations.keep_their_names(graph)
        taken = taken_names(graph) | {insertion.name for insertion in sites.insertions}
        self.affine_names = {
            id(call.operation): unique_name(f"{call.operation.name}_affine", taken)
            for call in {
                id(call.operation): call for _, call, _ in graph.walk() if self._how(call) == AFFINE
            }.values()
        }
        self._fill_rows()
        self.parameters = (
            self.model.count_params(),
            self.model.count_params() + self._added_parameters(),
        )
        self.flops = (flops(graph), flops(graph, self))

    def affine_key(self, call: Call) -> Any:
        """Tells the affines apart: one for all calls of a normalization."""
        return id(call.operation)

    def _how(self, call) -> str | None:
        fate = self.normalizations.fates.get(call.key)
        return None if fate is None else fate.how

    def _fill_rows(self) -> None:
        listed: set[int] = set()
        first_before: set[str] = set()
        for graph, call, path in self.graph.walk():
            layer = call.operation
            kind = type(unwrap(layer)).__name__
            for (key, _), reading in (
                self.sites.readings.items() if is_weight_layer(layer, self.policy) else ()
            ):
                if key == call.key:
                    name, rate = reading.insertion.name, reading.insertion.rate
                    result = (
                        f"IC {name} (rate {rate:g}) before it"
                        if name not in first_before
                        else f"shares {name}"
                    )
                    first_before.add(name)
                    self.changes.append(Change(path, kind, "ic", result, name, rate))
            if call.key in self.sites.reasons:
                self.skipped.append(Skip(path, kind, f"no IC: {self.sites.reasons[call.key]}"))
            if id(layer) in self.normalizations.biased and id(layer) not in listed:
                self.changes.append(Change(path, kind, "bias", "gets a bias"))
            if call.key in self.normalizations.fates:
                self._fill_normalization(call, path, kind)
            elif (
                id(layer) not in listed
                and graph.child(call) is None
                and not is_weight_layer(layer, self.policy)
            ):
                reason = _reason_to_stay(layer)
                if reason:
                    self.skipped.append(Skip(path, kind, reason))
            listed.add(id(layer))

    def _fill_normalization(self, call, path: str, kind: str) -> None:
        fate = self.normalizations.fates[call.key]
        if fate.how == KEPT:
            self.skipped.append(Skip(path, kind, fate.reason))
            return
        targets = ", ".join(target.name for target in fate.targets)
        name = self.affine_names[id(call.operation)] if fate.how == AFFINE else None
        result = {
            DROPPED: "removed",
            BEFORE: f"absorbed into {targets}",
            AFTER: f"absorbed into {targets}",
            AFFINE: f"becomes {name}",
        }[fate.how]
        result += NAME_STAYS if call.key in self.named else ""
        self.changes.append(Change(path, kind, "normalization", result, name))

    def _added_parameters(self) -> int:
        added = sum(
            4 * insertion.tensor.shape[insertion.axis] for insertion in self.sites.insertions
        )
        fates: dict[int, list] = {}
        biased = dict(self.normalizations.biased)
        for _, call, _ in self.graph.walk():
            if call.key in self.normalizations.fates:
                fates.setdefault(id(call.operation), []).append(
                    (call.operation, self.normalizations.fates[call.key])
                )
            if biased.pop(id(call.operation), None) is not None:
                added += absorb.size_of_new_bias(call.operation, call.outputs[0].shape)
        for pairs in fates.values():
            operation = pairs[0][0]
            channels = inside_time(operation).moving_mean.shape[0]
            added -= 0 if any(fate.how == KEPT for _, fate in pairs) else operation.count_params()
            added += 2 * channels if any(fate.how == AFFINE for _, fate in pairs) else 0
        return added


def _reason_to_stay(layer) -> str:
    if not isinstance(layer, keras.layers.Layer) or not layer.weights or is_ic(layer):
        return ""
    if is_readable(layer):
        return (
            "stays, and all that is in it: called with training=True, it works as in training at"
            " inference too"
        )
    inner = unwrap(layer)
    if isinstance(inner, NORMALIZATIONS):
        return "stays: only BatchNormalization leaves"
    if isinstance(inner, keras.layers.Normalization):
        return "stays: preprocessing"
    hidden = (
        sum(is_batch_normalization(part) for part in sublayers(layer))
        if inner is not layer or len(sublayers(layer)) > 1
        else 0
    )
    also = f", nor do the {hidden} BatchNormalization in it leave" if hidden else ""
    return (
        f"no IC{also}: not known as a weight layer, and what happens to its weights inside cannot"
        " be seen; `weight_layers=` puts an IC before it"
    )


def plan(
    model: keras.Model,
    rate: float | Callable[[Site], float] = 0.05,
    *,
    weights: str = "fresh",
    normalization: str = "remove",
    skip_first: bool = True,
    skip: Callable[[keras.layers.Layer], bool] | None = None,
    weight_layers: Sequence[type] = (),
    share: bool = True,
    bias: str = "repair",
) -> Plan:
    """Says what `rewrite` with the same arguments would do to a model, without doing it.

    A model is rewritten by taking out its BatchNormalization layers and putting one IC layer
    (BatchNorm, then a little dropout) directly before each weight layer: Dense, EinsumDense, every
    convolution (depthwise, separable and transposed too), also inside `TimeDistributed` and other
    wrappers, and inside nested Sequential and Functional models. The IC layer stands above
    ZeroPadding, Flatten and Reshape, so that the zeros of the padding do not enter its statistics
    and each channel has one.

    Args:
        model: A Sequential or Functional model, built. It is not changed.
        rate: Float in `[0, 1)`, the probability to drop a value; or a function that takes a `Site`,
            a tuple `(layer, index, depth)` of the weight layer, the number of IC layers before this
            one and the same as a fraction from 0 to 1, and returns such a float. Defaults to
            `0.05`.
        weights: What the new model starts from. `"fresh"`: new weights. `"copy"`: every layer that
            stays keeps its weights. `"preserve"`: the new model computes the function of the given
            one at inference: a BatchNormalization is absorbed into the linear layer before it, or
            into those after it, where that is exact, and becomes a trainable per-channel affine
            elsewhere; every IC layer starts as the identity. Defaults to `"fresh"`.
        normalization: `"remove"`: the BatchNormalization layers leave. `"keep"`: they stay.
            Defaults to `"remove"`. Other normalizations stay.
        skip_first: Boolean, whether weight layers that read the raw input get no IC layer. The
            input is raw until it has gone through something learned. Defaults to `True`.
        skip: Function of a weight layer that returns True where it is to get no IC layer. Defaults
            to `None`: none is left out.
        weight_layers: Tuple of further classes of layers that count as weight layers. Defaults to
            `()`.
        share: Boolean, whether weight layers that read the same tensor share one IC layer. Defaults
            to `True`.
        bias: `"repair"`: a bias-free layer that loses the BatchNormalization behind it gets a bias.
            `"leave"`: it does not. Defaults to `"repair"`.

    Returns:
        A `Plan`. `print(plan)` shows it as a table; `plan.changes` and `plan.skipped` are its rows,
        `plan.to_dict()` is the same as JSON values.

    Raises:
        ValueError: For an argument that the above excludes, a subclassed or unbuilt model, or one
            without weight layers.

    Example:

    ```python
    import keras
    import keras_ic

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(16, 3, use_bias=False, name="conv1"),
            keras.layers.BatchNormalization(name="bn1"),
            keras.layers.ReLU(),
            keras.layers.Conv2D(32, 3, name="conv2"),
        ]
    )
    plan = keras_ic.plan(model)
    assert [change.layer for change in plan.changes] == ["conv1", "bn1", "conv2"]
    assert plan.skipped[0].reason == "no IC: reads the raw input"
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
    """
    policy = checked_policy(
        rate,
        weights=weights,
        normalization=normalization,
        skip_first=skip_first,
        skip=skip,
        weight_layers=weight_layers,
        share=share,
        bias=bias,
    )
    graph = read_to_change(model)
    if not any(is_weight_layer(call.operation, policy) for _, call, _ in graph.walk()):
        raise ValueError(
            "The model has no weight layers (Dense, convolutions, EinsumDense) that an IC layer"
            " could stand before; name the classes of its own in `weight_layers=`. Received: model"
            f" {model.name!r} (of type {type(model).__name__})"
        )
    normalizations = decide_normalizations(graph, policy)
    return Plan(graph, policy, normalizations, decide_sites(graph, normalizations, policy))
