"""How much of the loss of a whole batch a part of it is."""

from typing import Any, NamedTuple

import keras

from keras_ic.utils.keras_internals import (
    compiled_losses,
    mask_of,
    run_in_training,
    sublayers,
    sum_of_losses,
    weights_under_mask,
)
from keras_ic.utils.lazy_imports import tensorflow as tf

# Losses of these reductions add up over the parts of a batch; all others are means.
SUMS = ("sum", "none", None)


class LossWeights(NamedTuple):
    """What the losses of a part of a batch are multiplied with, so that the sum over all parts on
    all replicas is the loss of the whole batch.

    Attributes:
        examples: Scalar tensor, the part's share of the examples of the whole batch. It is the
            weight of `model.losses` and of a loss that the model computes itself.
        losses: List of scalar tensors, the weights of the compiled losses.
    """

    examples: Any
    losses: list[Any]


class LossDivisors:
    """What the compiled losses of a model divide by: the number of examples, the number of values
    that a mask leaves, or the sum of the weights.

    Args:
        model: A compiled `keras.Model` whose losses are built.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        # A loss that the model computes itself is a mean over examples, as far as is known.
        has_own = type(model).compute_loss is not keras.Model.compute_loss
        self.losses = [] if has_own else compiled_losses(model)
        # Which the outputs alone tell.
        self.needs_outputs = any(loss.reduction not in SUMS for loss in self.losses) and (
            any(loss.reduction == "mean_with_sample_weight" for loss in self.losses)
            or any(map(_may_mask, sublayers(model)))
        )

    def of_part(self, data: tuple, examples: Any) -> list[Any]:
        """The divisors of a part of a batch; all scalars, up to a factor that is the same in all
        parts.

        The model runs once more for it. In a graph nothing of that is left but what a mask is
        computed from.

        Args:
            data: Tuple `(x, y, sample_weight)`.
            examples: Scalar tensor, the number of examples.
        """
        divisors = [examples] * len(self.losses)
        if not self.needs_outputs:
            return divisors

        def note(place, loss, y_true, y_pred, weight):
            divisors[place] = _divisor(loss, y_pred, weight, examples)
            return tf.zeros([])

        x, y, sample_weight = data
        with keras.StatelessScope():
            sum_of_losses(self.model, y, run_in_training(self.model, x), sample_weight, note)
        return divisors

    def weights(self, parts: list, totals: list) -> list[LossWeights]:
        """The weights of all parts.

        Args:
            parts: List with the number of examples and the divisors of each part.
            totals: The same of the whole batch.
        """
        found = []
        for part in parts:
            ratios = [
                tf.math.divide_no_nan(one, whole) for one, whole in zip(part, totals, strict=True)
            ]
            losses = [
                tf.ones([]) if loss.reduction in SUMS else ratio
                for loss, ratio in zip(self.losses, ratios[1:], strict=True)
            ]
            found.append(LossWeights(ratios[0], losses))
        return found


def _may_mask(layer: keras.layers.Layer) -> bool:
    """Whether a layer may put a mask on its outputs that its inputs do not have."""
    is_known = type(layer).__module__.partition(".")[0] in ("keras", "keras_ic")
    return not is_known or isinstance(layer, keras.layers.Masking) or hasattr(layer, "mask_zero")


def _divisor(loss, y_pred, weight, examples):
    mask = mask_of(y_pred)
    if loss.reduction != "mean_with_sample_weight":
        return examples if mask is None else tf.reduce_sum(tf.cast(mask, tf.float32))
    weights = weights_under_mask(weight, mask, "float32")
    return examples if weights is None else tf.reduce_sum(tf.cast(weights, tf.float32))


def unscaled(loss: keras.Loss, y_true: Any, y_pred: Any, weight: Any) -> Any:
    """The value of a compiled loss on this replica alone.

    Keras divides a mean by the number of replicas. It does not divide a loss that is a scalar
    before it is reduced.
    """
    value = loss(y_true, y_pred, weight)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    is_reduced_by_keras = type(loss).__call__ is keras.losses.Loss.__call__
    if replicas == 1 or loss.reduction in SUMS or not is_reduced_by_keras:
        return value
    wide = keras.tree.map_structure(
        lambda part: keras.ops.convert_to_tensor(part, dtype=loss.dtype), (y_true, y_pred)
    )
    is_reduced = weight is not None or mask_of(y_pred) is not None or loss.call(*wide).shape.rank
    return value * replicas if is_reduced else value
