"""The rate of the IC layers, over the depth of a network and over the epochs of a training."""

import keras
import numpy as np

from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.training.config import TrainingConfig

PARTS = 10  # of the epochs, in which the rate of the IC layers is the same


def ic_layers(model: keras.Model) -> list[IndependentComponent]:
    """The IC layers of a model and of the models in it, from its inputs to its outputs."""
    # Not by one call of `_flatten_layers`, which gives the layers of an inner model backwards.
    found: dict[IndependentComponent, None] = {}
    for layer in model._flatten_layers(include_self=False, recursive=False):
        is_ic = isinstance(layer, IndependentComponent)
        found.update(dict.fromkeys([layer] if is_ic else ic_layers(layer)))
    return list(found)


def rates_over_depth(config: TrainingConfig, layers: int) -> list[float]:
    """The rate of each IC layer, first to last, before the schedule over the epochs."""
    last = max(layers - 1, 1)
    if config.rates is not None:
        if config.rate_depth == "linear":
            return np.linspace(config.rates[0], config.rates[-1], layers).tolist()
        parts = len(config.rates)
        return [config.rates[min(parts * index // last, parts - 1)] for index in range(layers)]
    depths = [index / last for index in range(layers)]
    factors = {
        "uniform": lambda depth: 1.0,
        "rising": lambda depth: 2 * depth,
        "falling": lambda depth: 2 - 2 * depth,
    }
    return [config.rate * factors[config.rate_depth](depth) for depth in depths]


class RateSchedule(keras.callbacks.Callback):
    """Sets the rate of every IC layer at the beginning of an epoch.

    The rate is a constant of the compiled step, so that each change compiles the step once more;
    hence ten parts rather than a change an epoch.

    Args:
        schedule: `"constant"`, `"anneal"` (down to 0 in ten equal parts of the epochs) or `"grow"`
            (up from a tenth).
        epochs: Integer above 0, the epochs of the whole training.
        rates: List of floats in `[0, 1)`, one for each IC layer.
    """

    def __init__(self, schedule: str, epochs: int, rates: list[float]):
        super().__init__()
        self.schedule, self.epochs, self.rates = schedule, epochs, rates

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the rates of the epoch, counted from 0."""
        part = PARTS * epoch // self.epochs
        # Never up from 0: a layer that is saved with a rate of 0 has no random stream.
        factors = {"constant": 1.0, "anneal": 1 - part / (PARTS - 1), "grow": (part + 1) / PARTS}
        factor, changed = factors[self.schedule], False
        for layer, rate in zip(ic_layers(self.model), self.rates, strict=True):
            changed |= layer.rate != rate * factor
            layer.rate = rate * factor
        if changed:
            self.model.make_train_function(force=True)
