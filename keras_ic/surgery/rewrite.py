"""Rewriting a model into its IC form: `plan` says what `rewrite` does."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import layers

from keras_ic.layers.channel_affine import ChannelAffine, ChannelClip
from keras_ic.surgery.builder import build, check_copies
from keras_ic.surgery.edits import Edits, Fold, FoldDecision
from keras_ic.surgery.flow import Flow
from keras_ic.surgery.folding import (
    FOR_TRAINING,
    affine_layer,
    channel_axis_of,
    fold_exactly,
    reason_to_keep,
)
from keras_ic.surgery.graph import Call, Graph, is_readable, read_to_change
from keras_ic.surgery.layer_traits import (
    NORMALIZATIONS,
    Effect,
    effect_of,
    has_linear_activation,
    inside_time,
    is_batch_normalization,
    is_ic,
    is_linear,
    keeps_shifts,
    unwrap,
)
from keras_ic.surgery.linear_folding import has_bias
from keras_ic.surgery.placement import (
    READS_INDICES,
    data_inputs,
    is_weight_layer,
    notes_on_batches,
    place_ics,
)
from keras_ic.surgery.plan_report import Plan
from keras_ic.surgery.policy import Policy, Site
from keras_ic.utils.keras_internals import sublayers

ON_INPUT = (
    "stays: it standardizes an input of the model, and no IC would take its place; with"
    " `skip_first=False` one does"
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
    wrappers, and inside nested Sequential and Functional models. A dropout before the weight layer
    is taken over, or follows an IC layer of rate 0. The IC layer stands before
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
            one at inference: a BatchNormalization goes into the linear layer before it, or
            into those after it, where that is exact, and becomes a trainable `ChannelAffine`
            elsewhere; every IC layer starts as the identity. Defaults to `"fresh"`.
        normalization: `"remove"`: the BatchNormalization layers leave. `"keep"`: they stay.
            Defaults to `"remove"`. Other normalizations stay.
        skip_first: Boolean, whether weight layers that read the raw input get no IC layer. The
            input is raw until it has gone through something learned. A BatchNormalization on it
            stays, as nothing would take its place. For a part that another model feeds, say
            `False`. Defaults to `True`.
        skip: Function of a weight layer that returns True where it is to get no IC layer. Defaults
            to `None`: none is left out.
        weight_layers: Tuple of further classes of layers that count as weight layers. Defaults to
            `()`.
        share: Boolean, whether weight layers that read the same tensor share one IC layer. Defaults
            to `True`.
        bias: `"repair"`: a bias-free layer that loses the BatchNormalization after it gets a bias.
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
    assert plan.skipped[0].reason.startswith("no IC: reads an input of the model")
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
    """
    policy = Policy(rate, weights, normalization, skip_first, skip, weight_layers, share, bias)
    graph = read_to_change(model)
    if not any(is_weight_layer(call.operation, policy) for _, call, _ in graph.walk()):
        raise ValueError(
            "The model has no weight layers (Dense, convolutions, EinsumDense) that an IC layer"
            " could stand before; name the classes of its own in `weight_layers=`. Received: model"
            f" {model.name!r} (of type {type(model).__name__})"
        )
    edits = Edits(graph, policy.weights)
    _take_out_normalizations(edits, policy)
    check_copies(edits)
    reasons = {key: f"no IC: {reason}" for key, reason in place_ics(edits, policy).items()}
    plan = Plan(edits, {**reasons, **_reasons_to_stay(edits, policy)})
    plan.notes += notes_on_batches(edits)
    return plan


def rewrite(
    model: keras.Model, rate: float | Callable[[Site], float] = 0.05, **policy: Any
) -> keras.Model:
    """Rewrites a model into its IC form: BatchNormalization out, one IC layer before each weight
    layer.

    The given model is not changed. The new one has its name, its class where that can be
    constructed from inputs and outputs, its names of layers, regularizers, constraints, dtype
    policies, trainable flags and compile configuration, with a fresh optimizer. An IC layer is
    frozen where the weight layer after it is. Where a layer leaves that gave one of several
    outputs its name, an `Identity` has that name. What is done to a model can be read first, with
    `keras_ic.plan`.

    With `weights="preserve"` the new model computes what the given one does at inference. Its IC
    layers then start as identities, with a moving mean of 0 and a moving variance of 1. Before
    training, set these from data with `keras_ic.calibrate`, which keeps the function.

    Args:
        model: A Sequential or Functional model, built.
        rate: Float in `[0, 1)` or function of a `Site`; see `keras_ic.plan`. Defaults to `0.05`.
        **policy: `weights`, `normalization`, `skip_first`, `skip`, `weight_layers`, `share`,
            `bias`: see `keras_ic.plan`, which has their defaults. State of preprocessing layers
            (the mean of `Normalization`, vocabularies) is copied with `weights="fresh"` too.

    Returns:
        A new model: a Sequential for a Sequential, a Functional for a Functional.

    Raises:
        ValueError: For an argument that the above excludes, a subclassed or unbuilt model, one
            without weight layers, one in which there is nothing to change, such as a rewritten one,
            and one with a layer that cannot be rebuilt from its configuration.

    Warns:
        UserWarning: For a compiled model with an optimizer or a metric that cannot be rebuilt
            from its configuration, or with a `compile` of its class's own: the new model is not
            compiled.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(16, 3, use_bias=False, name="conv1"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(32, 3, name="conv2"),
        ]
    )
    ic_model = keras_ic.rewrite(model, 0.05, weights="preserve")
    assert [layer.name for layer in ic_model.layers][2:] == ["conv2_ic", "conv2"]
    x = np.ones((2, 32, 32, 3), "float32")
    assert np.allclose(ic_model.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
    """
    decided = plan(model, rate, **policy)
    if not decided.changes:
        rewritten = any(is_ic(call.operation) for _, call, _ in decided.edits.graph.walk())
        state = "is in IC form already" if rewritten else "has nothing that could be changed"
        shown = [f"{skip.layer}: {skip.reason}" for skip in decided.skipped[:2]]
        raise ValueError(
            f"The model {state}, so that there is nothing to rewrite; `keras_ic.plan` says why of"
            f" each layer. Received: model {model.name!r} with {'; '.join(shown)}"
        )
    return build(decided.edits)


def _take_out_normalizations(edits: Edits, policy: Policy) -> None:
    """Decides for every BatchNormalization of the model and of the models in it."""
    root = edits.graph
    if policy.normalization == "remove" and policy.skip_first:
        raw = Flow(edits).raw
        for _, call, _ in root.walk():
            if is_batch_normalization(call.operation) and id(call.inputs[0]) in raw:
                edits.folds[call.key] = Fold(
                    FoldDecision.KEPT, channel_axis_of(call), reason=ON_INPUT
                )
    if policy.normalization == "remove" and policy.weights == "preserve":
        scope = dataclasses.replace(FOR_TRAINING, new_biases=policy.bias == "repair")
        fold_exactly(edits, scope)
    else:
        for _, call, _ in root.walk():
            layer = affine_layer(call.operation, FOR_TRAINING)
            if layer is None or call.key in edits.folds:
                continue
            reason = reason_to_keep(layer, call)
            if policy.normalization == "keep":
                reason = 'stays, as normalization="keep" says'
            decision = FoldDecision.KEPT if reason else FoldDecision.REMOVED
            edits.folds[call.key] = Fold(decision, channel_axis_of(call), reason=reason)
    if policy.bias == "repair":
        for graph, call, _ in root.walk():
            if edits.is_bypassed(call):
                edits.biased.update(
                    {
                        id(layer): layer
                        for layer in _linear_layers_before(graph, call)
                        if not has_bias(inside_time(layer))
                    }
                )


def _linear_layers_before(graph: Graph, call: Call) -> Iterator[Any]:
    """The linear layers before a normalization, with nothing between that would keep a bias from
    doing the shift's work.

    The way leads out of the graph of a model and into others.
    """
    tensors, seen = [(graph, tensor) for tensor in call.inputs], set()
    while tensors:
        graph, tensor = tensors.pop()
        if (id(graph), id(tensor)) in seen:
            continue
        seen.add((id(graph), id(tensor)))
        tensors += graph.across(tensor)
        producer = graph.producer(tensor)
        if producer is None or graph.child(producer) is not None:
            continue
        layer = inside_time(producer.operation)
        if is_linear(layer) and has_linear_activation(layer):
            yield producer.operation
        elif keeps_shifts(producer) or is_batch_normalization(layer):
            tensors += [(graph, given) for given in producer.inputs]


def _reasons_to_stay(edits: Edits, policy: Policy) -> dict[int, str]:
    """Why layers with weights stay that are no weight layers, by the key of their first call."""
    flow = Flow(edits)
    reasons = {
        call.key: _reason_to_stay(call, flow, policy)
        for _, call, _ in edits.graph.layers()
        if call.key not in edits.folds and not is_weight_layer(call.operation, policy)
    }
    return {key: reason for key, reason in reasons.items() if reason}


def _reason_to_stay(call: Call, flow: Flow, policy: Policy) -> str:
    layer = call.operation
    if not layer.weights or is_ic(layer):
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
    if isinstance(inner, (layers.PReLU, ChannelAffine, ChannelClip)):
        return "stays: it has one weight a channel or place, and mixes none"
    if effect_of(call) is Effect.LOOKUP:
        return f"no IC: {READS_INDICES}"
    reason = (
        f"no IC{also}: not known as a weight layer, and what happens to its weights inside cannot"
        " be seen"
    )
    tensor = data_inputs(call)[0]
    if "float" not in tensor.dtype or id(tensor) in flow.covered:
        return reason
    raw = policy.skip_first and id(tensor) in flow.raw
    more = " with `skip_first=False`" if raw else ""
    return f"{reason}; `weight_layers=`{more} puts an IC before it"
