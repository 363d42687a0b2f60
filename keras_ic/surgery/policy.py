"""The policy of a rewriting: what the keyword arguments of `plan` and `rewrite` say, checked."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_ic.utils.validation import checked_bool, checked_choice, checked_rate


class Site(NamedTuple):
    """A place where an IC layer goes, as a `rate` callable gets it.

    Attributes:
        layer: The weight layer of the given model that the IC layer will stand before.
        index: Integer, how many IC layers stand before it in the order in which the model runs.
        depth: Float in `[0, 1]`, the same as a fraction: 0 for the first IC layer, 1 for the last.
    """

    layer: keras.layers.Layer
    index: int  # type: ignore[assignment]
    depth: float


@dataclasses.dataclass
class Policy:
    """The arguments of `plan` and `rewrite`, checked; see there."""

    rate: float | Callable[[Site], float]
    weights: str
    normalization: str
    skip_first: bool
    skip: Callable[[keras.layers.Layer], bool] | None
    weight_layers: Any
    share: bool
    bias: str

    def __post_init__(self) -> None:
        if not callable(self.rate):
            self.rate = checked_rate("rate", self.rate, ", or a function of the site")
        if self.skip is not None and not callable(self.skip):
            raise ValueError(
                "`skip` must be None or a function of a layer that returns True or False. Received:"
                f" skip={self.skip!r}"
            )
        kinds = self.weight_layers
        self.weight_layers = tuple(kinds) if isinstance(kinds, (tuple, list)) else (kinds,)
        if not all(
            isinstance(kind, type) and issubclass(kind, keras.layers.Layer)
            for kind in self.weight_layers
        ):
            raise ValueError(
                "`weight_layers` must be a tuple of subclasses of `keras.layers.Layer`. Received:"
                f" weight_layers={kinds!r}"
            )
        checked_choice("weights", self.weights, ("fresh", "copy", "preserve"))
        checked_choice("normalization", self.normalization, ("remove", "keep"))
        checked_choice("bias", self.bias, ("repair", "leave"))
        checked_bool("skip_first", self.skip_first)
        checked_bool("share", self.share)

    def rate_at(self, site: Site) -> float:
        """The rate of the IC layer at `site`."""
        if not callable(self.rate):
            return self.rate
        return checked_rate(f"rate(site) at layer {site.layer.name!r}", self.rate(site))
