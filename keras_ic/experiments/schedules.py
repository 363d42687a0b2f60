"""What changes while a run trains: the learning rate by the step, the rate of the IC layers by the
epoch.
"""

import math
from typing import Any

import keras

from keras_ic.experiments.configuration import Configuration
from keras_ic.layers.independent_component import IndependentComponent

DROPS = (0.4, 0.6, 0.8)  # when the next tenth begins, as a share of all steps
RISE = 0.3  # the share of the steps in which one cycle goes up
START = 1 / 25  # of the largest learning rate, where one cycle starts
PARTS = 10  # of the epochs, in which the rate of the IC layers is the same


@keras.saving.register_keras_serializable("keras_ic")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Linearly up from a 25th of the learning rate in the first 30 % of the steps, then a half
    cosine down to 0.
    """

    def __init__(self, learning_rate, steps):
        self.learning_rate, self.steps = learning_rate, steps

    def __call__(self, step):
        """The learning rate of a step, counted from 0."""
        share = keras.ops.cast(step, "float32") / self.steps
        rising = START + (1 - START) * share / RISE
        falling = 0.5 * (
            1 + keras.ops.cos(math.pi * keras.ops.clip((share - RISE) / (1 - RISE), 0, 1))
        )
        return self.learning_rate * keras.ops.where(share < RISE, rising, falling)

    def get_config(self):
        """The arguments."""
        return {"learning_rate": self.learning_rate, "steps": self.steps}


def optimizer(
    configuration: Configuration, steps: int, model: keras.Model
) -> keras.optimizers.Optimizer:
    """The optimizer of a run of `steps` steps in all."""
    schedule = learning_rate(configuration, steps)
    decay = configuration.decoupled_weight_decay or None
    if configuration.optimizer == "adam":
        made = keras.optimizers.Adam(schedule, weight_decay=decay)
    else:
        made = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=decay)
    if decay:
        made.exclude_from_weight_decay(
            var_list=[
                variable for variable in model.trainable_variables if "kernel" not in variable.name
            ]
        )
    return made


def learning_rate(configuration: Configuration, steps: int) -> Any:
    """The learning rate of a run of `steps` steps in all: a number if it is constant, else a Keras
    schedule.
    """
    top = configuration.learning_rate
    if configuration.schedule == "steps":
        boundaries = [round(share * steps) - 1 for share in DROPS]
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            boundaries, [top, top / 10, top / 100, top / 1000]
        )
    if configuration.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(top, steps)
    return OneCycle(top, steps) if configuration.schedule == "one-cycle" else top


class RateSchedule(keras.callbacks.Callback):
    """Sets the rate of every IC layer at the beginning of an epoch.

    The rate is a constant of the compiled step, so that each change compiles the step once more;
    hence ten parts rather than a change an epoch.
    """

    def __init__(self, configuration: Configuration, rates: list[float]):
        super().__init__()
        self.configuration, self.rates = configuration, rates

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the rates of the epoch, counted from 0."""
        part = PARTS * epoch // self.configuration.epochs
        # Never up from 0: a layer that is saved with a rate of 0 has no random stream.
        factor = {"constant": 1.0, "anneal": 1 - part / (PARTS - 1), "grow": (part + 1) / PARTS}[
            self.configuration.rate_schedule
        ]
        changed = False
        for layer, rate in zip(ic_layers(self.model), self.rates, strict=True):
            changed |= layer.rate != rate * factor
            layer.rate = rate * factor
        if changed:
            self.model.make_train_function(force=True)


def ic_layers(model: keras.Model) -> list[IndependentComponent]:
    """The IC layers of a model, from its inputs to its outputs."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, IndependentComponent)]
