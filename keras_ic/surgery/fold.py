"""Folding a model for inference, without its normalizations: `plan_fold` says what `fold` does."""

import warnings

import keras
import numpy as np

from keras_ic.surgery.builder import build, check_copies
from keras_ic.surgery.edits import Edits, FoldDecision
from keras_ic.surgery.folding import (
    FOR_INFERENCE,
    affine_layer,
    fold_exactly,
    inference_affine,
)
from keras_ic.surgery.graph import is_readable, read_to_change
from keras_ic.surgery.linear_folding import as_array
from keras_ic.surgery.plan_report import Plan
from keras_ic.utils.keras_internals import sublayers


def plan_fold(model: keras.Model) -> Plan:
    """Says what `keras_ic.fold` would do to a model, without doing it.

    Args:
        model: A Sequential or Functional model, built. It is not changed.

    Returns:
        A `Plan`. `print(plan)` shows it as a table; `plan.changes` and `plan.skipped` are its
        rows, `plan.to_dict()` is the same as JSON values.

    Raises:
        ValueError: As `fold`.

    Example:

    ```python
    import keras
    import keras_ic

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
    results = {change.layer: change.result for change in keras_ic.plan_fold(model).changes}
    assert results["ic"] == "folded into conv1, through the ReLU between"
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
    """
    edits = Edits(read_to_change(model), "preserve", is_for_inference=True)
    fold_exactly(edits, FOR_INFERENCE)
    check_copies(edits)
    plan = Plan(edits, _reasons_to_stay(edits))
    if not plan.changes:
        plan.notes.append("Nothing to fold: `fold` gives an equal copy.")
    return plan


def fold(model: keras.Model) -> keras.Model:
    """Makes a network for inference: its IC, BatchNormalization and dropout layers go into the
    weights of the layers beside them.

    The given model is not changed. The new one computes the same, to rounding, with the names,
    dtype policies, trainable flags and compile configuration of the given one. It saves, loads,
    quantizes and exports as every Keras model does.

    At inference, an IC layer is a scale and a shift of each channel. These go into the linear layer
    before it, or into all linear layers after it, through dropout, Flatten, Reshape, Permute,
    cropping, upsampling and average pooling, through maximum pooling where no scale is below 0 or
    the signs can go on, and a mere scale through padding with zeros. After a ReLU or ReLU6
    they go into the layer before that, and the ReLU becomes a `keras_ic.layers.ChannelClip`, a ReLU
    with bounds of each channel's own; so the zeros that `padding="same"` puts around the result are
    right. Where only the scale can leave, a `keras_ic.layers.ChannelAffine` adds the shift; where
    nothing can, as at a scale of 0 that no layer before takes up, it scales too. What was done to
    which layer, and why, can be read with `print(keras_ic.plan_fold(model))`.

    Args:
        model: A Sequential or Functional model, built, with its moving statistics set.

    Returns:
        A new model: a Sequential for a Sequential, a Functional for a Functional. Where there is
        nothing to fold, an equal copy.

    Raises:
        ValueError: For a subclassed or unbuilt model, and one with a layer that cannot be
            rebuilt from its configuration.

    Warns:
        UserWarning: For moving statistics that are as initialized: the network has not been
            trained, or only its weights were loaded. For a compiled model that the new one cannot
            be compiled like, see `keras_ic.rewrite`.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras_ic.IC(),
            keras.layers.Conv2D(5, 3, padding="same"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    keras_ic.recalibrate(model, x, verbose=0)

    folded = keras_ic.fold(model)
    assert not any(isinstance(layer, keras_ic.IC) for layer in folded.layers)
    assert np.allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
        - [Jacob et al., 2018](https://arxiv.org/abs/1712.05877), section 3.2, folding of batch
          normalization
    """
    plan = plan_fold(model)
    untrained = _untrained(plan.edits)
    if untrained:
        more = f" and {len(untrained) - 3} more" if len(untrained) > 3 else ""
        warnings.warn(
            "Moving statistics are as initialized, so that the model is folded as if it had never"
            " seen data: train it, load its weights, or call `keras_ic.recalibrate(model, data)`"
            f" first. Received: model {model.name!r} with {', '.join(untrained[:3])}{more}",
            stacklevel=2,
        )
    return build(plan.edits)


def _reasons_to_stay(edits: Edits) -> dict[int, str]:
    """Why layers stay that have normalizations inside, by the key of their first call."""
    reasons: dict[int, str] = {}
    for _, call, _ in edits.graph.layers():
        hidden = sum(affine_layer(part) is not None for part in sublayers(call.operation))
        if hidden and call.key not in edits.folds:
            why = (
                "called with training=True"
                if is_readable(call.operation)
                else "what happens inside cannot be seen"
            )
            reasons[call.key] = f"stays, and the {hidden} normalizations in it: {why}"
    return reasons


def _untrained(edits: Edits) -> list[str]:
    """The paths of the normalizations that fold with moving statistics as initialized, although
    they are not identities as after `rewrite(..., weights="preserve")`.
    """
    found = []
    for call, path, fold in edits.decided():
        layer = affine_layer(call.operation)
        if fold.decision is FoldDecision.KEPT or not hasattr(layer, "moving_variance"):
            continue
        seen = as_array(layer.moving_mean).any() or (as_array(layer.moving_variance) != 1).any()
        scale, shift = inference_affine(layer)
        if not seen and (np.any(np.abs(scale - 1) > 1e-6) or np.any(shift)):
            found.append(path)
    return found
