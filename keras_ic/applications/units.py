"""What the applications share: the units built in an order of layers, each with its name and its
seed, and the checks of the arguments.
"""

import itertools
import math
from collections.abc import Iterator

import keras
from keras import layers

from keras_ic.applications.orders import ALIASES, ORDERS
from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.utils.validation import (
    checked_bool,
    checked_choice,
    checked_int,
    checked_momentum,
    checked_rate,
    checked_seed,
    natural_real,
)

DEEPEST = 2000  # fewer weight layers, and fewer ICs, than SEEDS of each kind
SEEDS = 2048


class Units:
    """Makes the layers of one network in one order, each with its name and its seed.

    A unit is a weight layer with what the order puts before and after it; its other layers are
    named after the weight layer: `NAME_relu`, `NAME_ic`, `NAME_bn`, `NAME_dropout`.

    Args:
        order: String, a key of `ORDERS` or `ALIASES`.
        rate: Float in `[0, 1)`, the probability to drop a value in each IC.
        weight_decay: Float, at least 0, of Keras's `L2` on every kernel.
        seed: Integer in `[0, 2**31)` or None.
        dropout: Float in `[0, 1)`, the rate of a Dropout in its usual place, after each ReLU that
            follows a BatchNormalization; in the orders without IC layers alone.
        momentum: Float in `[0, 1]`, of the moving statistics.
        per_channel: Boolean, whether whole channels of images are dropped.
        classifier_ic: Boolean, whether an IC stands before the classifier.

    Raises:
        ValueError: For an argument that the above excludes.
    """

    last_gamma = "ones"  # of the last BatchNormalization of a residual block

    def __init__(
        self,
        order,
        rate,
        weight_decay,
        seed,
        dropout=0.0,
        momentum=0.99,
        per_channel=False,
        classifier_ic=True,
    ):
        order = checked_choice("order", order, (*ORDERS, *ALIASES))
        self.order = ORDERS[ALIASES.get(order, order)]
        self.rate = checked_rate("rate", rate)
        self.weight_decay = natural_real("weight_decay", weight_decay)
        self.dropout = checked_rate("dropout", dropout)
        if self.dropout and self.order.has_ic:
            raise ValueError(
                "`dropout` is for the orders without IC layers, which drop at `rate`. Received:"
                f" dropout={dropout} with order={order!r}"
            )
        self.momentum = checked_momentum("momentum", momentum)
        self.per_channel = checked_bool("per_channel", per_channel)
        self.classifier_ic = checked_bool("classifier_ic", classifier_ic)
        seed = None if seed is None else checked_seed("seed", seed)
        # Every network seed has 2 * SEEDS seeds of its own: the first half for kernels, the second
        # for masks.
        self.kernel_seeds = _seeds(seed, 0)
        self.mask_seeds = _seeds(seed, SEEDS)

    def kernel(self):
        """The arguments of a weight layer that are about its kernel."""
        return {
            "kernel_initializer": keras.initializers.HeNormal(seed=next(self.kernel_seeds)),
            "kernel_regularizer": (
                keras.regularizers.L2(self.weight_decay) if self.weight_decay else None
            ),
        }

    def convolution(self, name, filters, size, stride=1):
        """A convolution, without a bias in the orders whose BatchNorms shift instead."""
        return layers.Conv2D(
            filters,
            size,
            stride,
            "same",
            data_format="channels_last",
            use_bias=not self.order.has_batch_norm,
            name=name,
            **self.kernel(),
        )

    def dense(self, name, width):
        """A hidden dense layer, with a bias where the convolutions have one."""
        return layers.Dense(
            width, use_bias=not self.order.has_batch_norm, name=name, **self.kernel()
        )

    def logits(self, x, classes):
        """The last weight layer, which has a bias in every order."""
        return layers.Dense(classes, name="classifier", **self.kernel())(x)

    def batch_normalization(self, name, **arguments):
        """The BatchNormalization of the weight layer of this name."""
        return layers.BatchNormalization(momentum=self.momentum, name=f"{name}_bn", **arguments)

    def ic(self, name, rank=4):
        """The IC of the weight layer of this name, for inputs of this rank."""
        return IndependentComponent(
            self.rate,
            momentum=self.momentum,
            noise_shape=self._noise_shape(rank),
            seed=next(self.mask_seeds),
            name=f"{name}_ic",
        )

    def before(self, x, name):
        """What the order puts before the weight layer of this name, applied to `x`."""
        kinds = list(self.order.before)
        if name == "classifier" and not self.classifier_ic:
            kinds = [kind for kind in kinds if kind != "ic"]
        return self._apply(kinds, x, name)

    def after(self, x, name):
        """What the order puts after the weight layer of this name."""
        return self._apply(self.order.after, x, name)

    def convolution_unit(self, x, name, filters, size):
        """A whole unit of stride 1."""
        x = self.before(x, name)
        return self.after(self.convolution(name, filters, size)(x), name)

    def convolved(self, x, name, filters, size, stride):
        """A convolution, applied to `x`."""
        return self.convolution(name, filters, size, stride)(x)

    def residual_block(self, x, name, convolutions):
        """Units with these filters, sizes and strides, and the addition of `x`."""
        outputs, stride = convolutions[-1][0], math.prod(step for *_, step in convolutions)
        # Orders with a BatchNorm after the convolution have their last ReLU after the addition.
        is_last_after_add = "bn" in self.order.after
        skip = x
        for index, (filters, size, step) in enumerate(convolutions, 1):
            conv = f"{name}_conv{index}"
            x = self.before(x, conv)
            if index == 1 and (stride > 1 or skip.shape[-1] != outputs):
                skip = self.convolution(f"{name}_shortcut", outputs, 1, stride)(x)
                if is_last_after_add:
                    skip = self.batch_normalization(f"{name}_shortcut")(skip)
            x = self.convolved(x, conv, filters, size, step)
            if is_last_after_add and index == len(convolutions):
                x = self.batch_normalization(conv, gamma_initializer=self.last_gamma)(x)
            else:
                x = self.after(x, conv)
        x = layers.Add(name=f"{name}_add")([skip, x])
        return layers.ReLU(name=f"{name}_relu")(x) if is_last_after_add else x

    def pooled_logits(self, x, classes):
        """Global average pooling and the classifier, the head of every order. The IC stands after
        the pooling, since the classifier reads the means.
        """
        x = self._apply([kind for kind in self.order.before if kind != "ic"], x, "classifier")
        x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(x)
        if self.order.has_ic and self.classifier_ic:
            x = self.ic("classifier", rank=2)(x)
        return self.logits(x, classes)

    def _apply(self, kinds, x, name):
        for index, kind in enumerate(kinds):
            if kind == "relu":
                x = layers.ReLU(name=f"{name}_relu")(x)
                if self.dropout and "bn" in kinds[:index]:
                    x = layers.Dropout(
                        self.dropout,
                        noise_shape=self._noise_shape(len(x.shape)),
                        seed=next(self.mask_seeds),
                        name=f"{name}_dropout",
                    )(x)
            elif kind == "bn":
                x = self.batch_normalization(name)(x)
            else:
                x = self.ic(name, len(x.shape))(x)
        return x

    def _noise_shape(self, rank):
        return (None, 1, 1, None) if self.per_channel and rank == 4 else None


def _seeds(seed, offset) -> Iterator[int | None]:
    if seed is None:
        return itertools.repeat(None)
    return itertools.count(seed * 2 * SEEDS % 2**31 + offset)


def checked_input_shape(shape, smallest=1, known=False):
    """`shape` as a tuple, if it is (height, width, channels), with height and width at least
    `smallest`, or None unless they must be `known`.
    """
    sides = f"height and width at least {smallest}" + ("" if known else " or None")
    wanted = (
        f"a tuple (height, width, channels) of integers, {sides}, channels above 0, as (32, 32, 3)"
    )

    def checked(size, least):
        return (
            None
            if size is None
            else checked_int("input_shape", size, wanted, lambda value: value >= least)
        )

    if (
        isinstance(shape, (tuple, list))
        and len(shape) == 3
        and not any(size is None for size in (shape if known else shape[2:]))
    ):
        height, width, channels = shape
        return checked(height, smallest), checked(width, smallest), checked(channels, 1)
    raise ValueError(f"`input_shape` must be {wanted}. Received: input_shape={shape!r}")
