"""What to do about the variance shifts that were measured."""

import math
from typing import Any

import keras

from keras_ic.independence.report import Shift
from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.utils.keras_internals import sublayers

SMALL = 0.1  # A variance that is off by less changes little.
DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


def advise(model: keras.Model, found: list[tuple[Shift, Any, float]]) -> list[str]:
    """One sentence for each thing that would pay, with the layers and the call.

    Args:
        model: The model that was measured.
        found: For each normalization its shift, its layer, and how many values a channel had.
    """
    shifted = [
        (shift, layer) for shift, layer, count in found if shift.shift - 1 > _tolerance(count)
    ]
    if not shifted:
        return []
    worst = max(shift.shift for shift, _ in shifted)
    advice = [
        "Recalibrate: at inference, the variance is off from the moving variance by a factor of up"
        f" to {worst:.2g} in {_named([shift.layer for shift, _ in shifted])}. Call"
        " `keras_ic.recalibrate(model, x_train)`, or give `fit` the callback"
        " `keras_ic.Recalibration(x_train)`."
    ]
    # Dropout in training makes the moving variance larger than that at inference.
    lowered = [(shift, layer) for shift, layer in shifted if shift.ratio < 1 / (1 + SMALL)]
    order = {id(layer): place for place, layer in enumerate(sublayers(model))}
    if not lowered:
        return advice
    last = max(order[id(layer)] for _, layer in lowered)
    before = [
        layer
        for layer in sublayers(model)
        if isinstance(layer, (IndependentComponent, *DROPOUTS))
        and layer.rate > 0
        and order[id(layer)] < last
    ]
    dropouts = [layer for layer in before if isinstance(layer, DROPOUTS)]
    if dropouts:
        rate = max(layer.rate for layer in dropouts)
        advice.append(
            f"Another order: {_named([layer.name for layer in dropouts])} drop values that"
            f" {_named([shift.layer for shift, _ in lowered])} normalize afterwards. The IC order"
            f" normalizes first: `keras_ic.rewrite(model, rate={rate:g})` of the model without"
            " these dropouts."
        )
    ics = [layer for layer in before if isinstance(layer, IndependentComponent)]
    excess = max(1 / shift.ratio - 1 for shift, _ in lowered)
    if ics and excess > 2 * SMALL:
        rate = max(layer.rate for layer in ics)
        # Dropout adds variance in proportion to rate / (1 - rate).
        odds = SMALL / excess * rate / (1 - rate)
        advice.append(
            f"Another rate: the dropout of {_named([layer.name for layer in ics])} adds up to"
            f" {excess:.0%} to the variance in training. A rate of"
            f" {max(math.floor(100 * odds / (1 + odds)) / 100, 0.01):g} in place of {rate:g} would"
            " add about a tenth: `keras_ic.rewrite(model, rate=...)`."
        )
    return advice


def _tolerance(count: float) -> float:
    """How far the variance of so many values may be off by chance, or without harm."""
    return max(SMALL, 3 * math.sqrt(2 / max(count, 1)))


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
