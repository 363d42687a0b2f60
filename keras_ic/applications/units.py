"""What the applications share: the orders of layers, the units built in them, each with its name
and its seed, and the checks of the arguments.
"""

import itertools
from collections.abc import Iterator

import keras
from keras import layers

from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.utils.validation import checked_choice, checked_int, checked_real

# What stands before and what behind the weight layer of a unit.
IC_ORDERS = {
    "relu-ic-conv": (("relu", "ic"), ()),
    "ic-conv-relu": (("ic",), ("relu",)),
    "conv-relu-ic": ((), ("relu", "ic")),
}
CONV_BN_RELU = ((), ("bn", "relu"))
BN_RELU_CONV = (("bn", "relu"), ())
ALIASES = {"ic": "relu-ic-conv"}
DEEPEST = 2000  # fewer weight layers, and fewer ICs, than SEEDS of each kind
SEEDS = 2048


class Units:
    """Makes the layers of one network in one order, each with its name and its seed.

    A unit is a weight layer with what the order puts before and behind it; its other layers are
    named after the weight layer: `NAME_relu`, `NAME_ic`, `NAME_bn`.

    Args:
        order: String, a key of `IC_ORDERS` or `ALIASES`, or `"usual"`.
        rate: Float in `[0, 1)`, the probability to drop a value in each IC.
        weight_decay: Float, at least 0, the L2 penalty of every kernel.
        seed: Integer in `[0, 2**31)` or None.
        usual: What stands before and behind a weight layer in the order `"usual"`: `CONV_BN_RELU`
            or `BN_RELU_CONV`.

    Raises:
        ValueError: For an argument that the above excludes.
    """

    def __init__(self, order, rate, weight_decay, seed, usual=CONV_BN_RELU):
        orders = {"usual": usual, **IC_ORDERS}
        order = checked_choice("order", order, (*orders, *ALIASES))
        self.order = ALIASES.get(order, order)
        self.kinds_before, self.kinds_behind = orders[self.order]
        self.rate = checked_real(
            "rate",
            rate,
            "a number in [0, 1), the probability to drop a value",
            lambda value: 0 <= value < 1,
        )
        self.weight_decay = checked_real(
            "weight_decay", weight_decay, "a number of 0 or more", lambda value: value >= 0
        )
        if seed is not None:
            seed = checked_int(
                "seed", seed, "None or an integer in [0, 2**31)", lambda value: 0 <= value < 2**31
            )
        # Every network seed has 2 * SEEDS seeds of its own: the first half for kernels, the second
        # for ICs.
        self.kernel_seeds = _seeds(seed, 0)
        self.ic_seeds = _seeds(seed, SEEDS)

    def kernel(self):
        """The arguments of a weight layer that are about its kernel."""
        initializer = keras.initializers.HeNormal(seed=next(self.kernel_seeds))
        return {
            "kernel_initializer": initializer,
            "kernel_regularizer": (
                keras.regularizers.L2(self.weight_decay) if self.weight_decay else None
            ),
        }

    def convolution(self, name, filters, size, stride=1):
        """A convolution, without a bias in the usual order, whose BatchNorms shift instead."""
        bias = self.order != "usual"
        return layers.Conv2D(
            filters,
            size,
            stride,
            "same",
            data_format="channels_last",
            use_bias=bias,
            name=name,
            **self.kernel(),
        )

    def dense(self, name, width):
        """A hidden dense layer, with a bias where the convolutions have one."""
        return layers.Dense(width, use_bias=self.order != "usual", name=name, **self.kernel())

    def logits(self, x, classes):
        """The last weight layer, which has a bias in every order."""
        return layers.Dense(classes, name="classifier", **self.kernel())(x)

    def ic(self, name):
        """The IC of the weight layer of this name."""
        return IndependentComponent(self.rate, seed=next(self.ic_seeds), name=f"{name}_ic")

    def before(self, x, name):
        """What the order puts before the weight layer of this name, applied to `x`."""
        return self._apply(self.kinds_before, x, name)

    def behind(self, x, name, activate=True):
        """What the order puts behind the weight layer of this name, without the ReLU unless
        `activate`.
        """
        return self._apply(
            [kind for kind in self.kinds_behind if activate or kind != "relu"], x, name
        )

    def convolution_unit(self, x, name, filters, size):
        """A whole unit of stride 1."""
        x = self.before(x, name)
        return self.behind(self.convolution(name, filters, size)(x), name)

    def pooled_logits(self, x, classes):
        """Global average pooling and the classifier. The IC stands behind the pooling, for what the
        classifier reads are the means.
        """
        x = self._apply([kind for kind in self.kinds_before if kind != "ic"], x, "classifier")
        x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(x)
        if self.order != "usual":
            x = self.ic("classifier")(x)
        return self.logits(x, classes)

    def _apply(self, kinds, x, name):
        for kind in kinds:
            if kind == "relu":
                x = layers.ReLU(name=f"{name}_relu")(x)
            elif kind == "bn":
                x = layers.BatchNormalization(name=f"{name}_bn")(x)
            else:
                x = self.ic(name)(x)
        return x


def _seeds(seed, offset) -> Iterator[int | None]:
    return (
        itertools.repeat(None)
        if seed is None
        else itertools.count(seed * 2 * SEEDS % 2**31 + offset)
    )


def checked_classes(classes):
    """`classes`, if it is an integer above 0."""
    return checked_int("classes", classes, "an integer above 0", lambda value: value > 0)


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
