"""The policy of a rewriting: what the keyword arguments of `plan` and `rewrite` say, checked."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

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


@dataclasses.dataclass(frozen=True)
class Policy:
    """The checked arguments of `plan` and `rewrite`; see there."""

    rate: float | Callable[[Site], float]
    weights: str
    normalization: str
    skip_first: bool
    skip: Callable[[keras.layers.Layer], bool] | None
    weight_layers: tuple[type, ...]
    share: bool
    bias: str

    def rate_at(self, site: Site) -> float:
        """The rate of the IC layer at `site`."""
        if not callable(self.rate):
            return self.rate
        return checked_rate(f"rate(site) at layer {site.layer.name!r}", self.rate(site))


def checked_policy(
    rate, *, weights, normalization, skip_first, skip, weight_layers, share, bias
) -> Policy:
    """The policy, or an error that names the choices."""
    if not callable(rate):
        rate = checked_rate("rate", rate, ", or a function of the site")
    if skip is not None and not callable(skip):
        raise ValueError(
            "`skip` must be None or a function of a layer that returns True or False. Received:"
            f" skip={skip!r}"
        )
    classes = weight_layers if isinstance(weight_layers, (tuple, list)) else (weight_layers,)
    if not all(isinstance(kind, type) and issubclass(kind, keras.layers.Layer) for kind in classes):
        raise ValueError(
            "`weight_layers` must be a tuple of subclasses of `keras.layers.Layer`. Received:"
            f" weight_layers={weight_layers!r}"
        )
    return Policy(
        rate=rate,
        weights=checked_choice("weights", weights, ("fresh", "copy", "preserve")),
        normalization=checked_choice("normalization", normalization, ("remove", "keep")),
        skip_first=checked_bool("skip_first", skip_first),
        skip=skip,
        weight_layers=tuple(classes),
        share=checked_bool("share", share),
        bias=checked_choice("bias", bias, ("repair", "leave")),
    )
