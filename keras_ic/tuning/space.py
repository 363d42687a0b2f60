"""What a search may choose from, declared as Keras Tuner's hyperparameters."""

import contextlib
import dataclasses
import math
from typing import Any

from keras_ic.applications.orders import ALIASES, ORDERS
from keras_ic.training.config import OF_IC, RATE_SCHEDULES, SCHEDULES
from keras_ic.utils.validation import (
    checked_choice,
    checked_real,
    positive_real,
    several_int,
)

# The fields of `TrainingConfig` that a space chooses.
CHOSEN = ("order", "rate", "rate_depth", "rates", "rate_schedule", "learning_rate", "schedule")
DEPTHS = ("uniform", "linear", "stages")
RATE, LEARNING_RATE = 0.05, 1e-3  # where a search begins, if they are in its ranges
DIGITS = 10  # to which numbers are rounded, so that 3 * 0.025 is 0.075


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """What a search may choose from.

    A single possible value is not a hyperparameter. What the
    orders without IC layers have no use for, and the rates of the depths that were not chosen, are
    conditional (`conditional_scope`): they are absent from the trials that they say nothing about.

    | hyperparameter | of which | where |
    | --- | --- | --- |
    | `order` | `orders` | |
    | `rate_depth` | `depths` | in orders with IC layers |
    | `rate` | `rate`, in steps of `rate_step` | depth `"uniform"` |
    | `rate_first`, `rate_last` | the same | depth `"linear"` |
    | `rate_1`, `rate_2`, ... | the same | depth `"stages"`, each in an equal part of the depth |
    | `rate_schedule` | `rate_schedules` | in orders with IC layers |
    | `learning_rate` | `learning_rate`, on a logarithmic scale | |
    | `schedule` | `schedules` | |

    Args:
        orders: Tuple of orders of layers, as of `keras_ic.training.TrainingConfig`. Defaults to
            `("relu-ic-conv",)`.
        rate: Number or pair of numbers in `[0, 1)`, the lowest and the highest probability to drop
            a value. 0, which makes the IC layer a BatchNormalization, is a candidate as any other.
            Defaults to `(0.0, 0.3)`.
        rate_step: Number above 0, what the candidates of a rate are apart. Defaults to `0.025`.
        depths: Tuple of `"uniform"` (one rate for all IC layers), `"linear"` (a first and a last
            rate, and those between them on a line) and `"stages"`. Defaults to all three.
        stages: Integer above 1, the number of equal parts of the depth that have a rate each with
            `"stages"`; three are the three stages of the CIFAR ResNets. Defaults to `3`.
        rate_schedules: Tuple of `"constant"`, `"anneal"` and `"grow"`, of the rate over the epochs.
            Defaults to `("constant", "anneal")`.
        learning_rate: Number or pair of numbers above 0; None leaves it as the model was compiled,
            for `ICHyperModel` alone. Defaults to `(3e-4, 1e-2)`.
        schedules: Tuple of `"steps"`, `"cosine"`, `"one-cycle"` and `"constant"`, the decay of the
            learning rate. Defaults to all of them.

    Raises:
        ValueError: For an argument that the above excludes.

    Example:

    ```python
    import keras_tuner
    from keras_ic.tuning import SearchSpace

    hp = keras_tuner.HyperParameters()
    hp.values["rate_depth"] = "stages"
    chosen = SearchSpace(learning_rate=1e-3, schedules=("cosine",)).choose(hp)
    assert chosen["rates"] == (0.05, 0.05, 0.05) and "rate_first" not in hp.values
    ```
    """

    orders: tuple[str, ...] = ("relu-ic-conv",)
    rate: Any = (0.0, 0.3)
    rate_step: float = 0.025
    depths: tuple[str, ...] = DEPTHS
    stages: int = 3
    rate_schedules: tuple[str, ...] = ("constant", "anneal")
    learning_rate: Any = (3e-4, 1e-2)
    schedules: tuple[str, ...] = SCHEDULES

    def __post_init__(self):
        choices = {
            "orders": (*ORDERS, *ALIASES),
            "depths": DEPTHS,
            "rate_schedules": RATE_SCHEDULES,
            "schedules": SCHEDULES,
        }
        values: dict[str, Any] = {
            name: _checked_choices(name, getattr(self, name), known)
            for name, known in choices.items()
        }
        values["orders"] = tuple(
            dict.fromkeys(ALIASES.get(order, order) for order in values["orders"])
        )
        values["rate"] = _checked_range(
            "rate",
            self.rate,
            "in [0, 1), the probabilities to drop a value",
            lambda value: 0 <= value < 1,
        )
        values["rate_step"] = positive_real("rate_step", self.rate_step)
        values["stages"] = several_int("stages", self.stages)
        if self.learning_rate is not None:
            values["learning_rate"] = _checked_range(
                "learning_rate", self.learning_rate, "above 0", lambda value: value > 0
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def for_layers(self, count: int) -> "SearchSpace":
        """The space for a network with so many IC layers, in which every hyperparameter sets one.

        No more stages than layers. Depths that come to the same are one depth: with one layer or
        one candidate of the rate all of them do, with two layers `"linear"` and `"stages"` do. A
        rate of 0 has no schedule.

        Args:
            count: Integer of 0 or more, the number of IC layers; 0 stands for none in any order.

        Example:

        ```python
        from keras_ic.tuning import SearchSpace

        assert SearchSpace().for_layers(2).depths == ("uniform", "linear")
        assert SearchSpace(depths="stages").for_layers(2).stages == 2
        ```
        """
        depths, stages = self.depths, self.stages
        if count > 1:
            stages = min(stages, count)
        if count < 2 or len(self.rates()) == 1:
            depths = ("uniform",) if len(depths) > 1 or count < 2 else depths
        elif count == 2 and "linear" in depths:
            depths = tuple(depth for depth in depths if depth != "stages")
        schedules = self.rate_schedules
        if self.rates() == [0.0]:
            schedules = schedules[:1]
        return dataclasses.replace(self, depths=depths, stages=stages, rate_schedules=schedules)

    def rates(self) -> list[float]:
        """The candidates of a rate, lowest first."""
        low, high = self.rate
        # No `Float` with a step, which rounds down: it has 11 steps of 0.025 in 0.3.
        steps = math.floor(round((high - low) / self.rate_step, DIGITS))
        return [round(low + step * self.rate_step, DIGITS) for step in range(steps + 1)]

    def choose(self, hp: Any) -> dict[str, Any]:
        """Declares the hyperparameters, and says what their values mean.

        Args:
            hp: A `keras_tuner.HyperParameters`.

        Returns:
            Dictionary of arguments of `keras_ic.training.TrainingConfig`.
        """
        order = _choice(hp, "order", self.orders)
        chosen: dict[str, Any] = {"order": order}
        with_ic = tuple(name for name in self.orders if ORDERS[name].has_ic)
        if with_ic:
            with _scope(hp, "order", with_ic, self.orders):
                of_ic = {
                    **self._rates(hp),
                    "rate_schedule": _choice(hp, "rate_schedule", self.rate_schedules),
                }
        chosen.update(of_ic if ORDERS[order].has_ic else OF_IC)
        if self.learning_rate is not None:
            chosen["learning_rate"] = self._learning_rate(hp)
        chosen["schedule"] = _choice(hp, "schedule", self.schedules)
        return chosen

    def _rates(self, hp) -> dict[str, Any]:
        depth = _choice(hp, "rate_depth", self.depths)
        names = {
            "uniform": ["rate"],
            "linear": ["rate_first", "rate_last"],
            "stages": [f"rate_{stage}" for stage in range(1, self.stages + 1)],
        }
        rates = {}
        for each in self.depths:
            with _scope(hp, "rate_depth", (each,), self.depths):
                rates[each] = tuple(self._rate(hp, name) for name in names[each])
        if depth is None:  # in an order without IC layers
            return {}
        if depth == "uniform":
            # None of the recipe's own.
            return {"rate_depth": depth, "rates": None, "rate": rates[depth][0]}
        return {"rate_depth": depth, "rates": rates[depth]}

    def _rate(self, hp, name: str):
        candidates = self.rates()
        if len(candidates) == 1:
            return candidates[0]
        return hp.Choice(
            name, candidates, default=min(candidates, key=lambda rate: abs(rate - RATE))
        )

    def _learning_rate(self, hp) -> float:
        low, high = self.learning_rate
        if low == high:
            return low
        return float(
            hp.Float(
                "learning_rate",
                low,
                high,
                sampling="log",
                default=min(max(LEARNING_RATE, low), high),
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them; `SearchSpace(**values)` gives an equal search space."""
        return dataclasses.asdict(self)


def _scope(hp, name: str, values: tuple[str, ...], choices: tuple[str, ...]):
    """What is declared within is there for these values of a hyperparameter alone."""
    return contextlib.nullcontext() if values == choices else hp.conditional_scope(name, values)


def _choice(hp, name: str, values: tuple[str, ...]):
    return hp.Choice(name, list(values)) if len(values) > 1 else values[0]


def _checked_choices(name: str, values: Any, choices: tuple[str, ...]) -> tuple[str, ...]:
    values = (values,) if isinstance(values, str) else values
    if not isinstance(values, (tuple, list)) or not values:
        raise ValueError(
            f"`{name}` must be one or more of {', '.join(map(repr, choices))}. Received:"
            f" {name}={values!r}"
        )
    return tuple(dict.fromkeys(checked_choice(name, value, choices) for value in values))


def _checked_range(name: str, value: Any, wanted: str, allowed) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    wanted = f"one or two numbers {wanted}, the lower first"
    if len(pair) not in (1, 2):
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
    low, high = (checked_real(name, number, wanted, allowed) for number in (pair[0], pair[-1]))
    if low > high:
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
    return low, high
