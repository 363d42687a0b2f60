"""The orders of layers that every network of this package comes in. They stand here alone."""

from typing import NamedTuple


class Order(NamedTuple):
    """What stands before and what after the weight layer of a unit."""

    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def has_ic(self) -> bool:
        """Whether it has IC layers."""
        return "ic" in self.before + self.after

    @property
    def has_batch_norm(self) -> bool:
        """Whether it has BatchNormalization layers, so that its weight layers need no bias."""
        return "bn" in self.before + self.after


ORDERS = {
    "conv-bn-relu": Order((), ("bn", "relu")),
    "bn-relu-conv": Order(("bn", "relu"), ()),
    "relu-ic-conv": Order(("relu", "ic"), ()),
    "ic-conv-relu": Order(("ic",), ("relu",)),
    "conv-relu-ic": Order((), ("relu", "ic")),
    "conv-bn-relu-ic": Order(("ic",), ("bn", "relu")),
}
ALIASES = {"usual": "conv-bn-relu", "ic": "relu-ic-conv"}
