"""What was measured: rows, a table, a figure."""

import dataclasses
import math
from typing import Any

from keras_ic.independence import figure
from keras_ic.utils import text_table

COLUMNS = {
    "|Corr.|": "correlation",
    "MI, nats": "mutual_information",
    "MI, norm.": "normalized_mutual_information",
    "R - I": "correlation_distance",
    "C - I": "covariance_distance",
}
HEADER = ("Layer", "Type", "Mode", "Channels", *COLUMNS, "Eff. rank")
SHIFT_HEADER = ("Layer", "Type", "Channels", "Mean", "Lowest", "Highest", "Shift")


@dataclasses.dataclass(frozen=True)
class Input:
    """The input of one weight layer in one mode. A value that does not exist, as the correlation of
    a single channel, is nan.

    Attributes:
        layer: The path of the layer, `outer/inner/name` inside nested models.
        type: The name of its class.
        mode: `"training"` or `"inference"`.
        channels: How many channels the layer reads.
        sampled: How many of these were looked at.
        rows: How many positions were looked at, over all of the data.
        correlation: The mean absolute correlation of pairs of channels.
        correlation_distance: The distance of the correlation matrix from the identity: the root
            mean square of the correlations.
        covariance_distance: The distance of the covariance matrix from the identity, divided by
            that of 0.
        effective_rank: From 1 to `sampled`: how many directions the variance is spread over.
        mutual_information: The mean mutual information of pairs of channels, in nats.
        normalized_mutual_information: The same as a share of the entropies of the channels.
        constant: How many of the sampled channels have no variance.
        pairs: How many pairs of channels enter the mutual information.
        bins: How many bins a channel was put into for it.
    """

    layer: str
    type: str
    mode: str
    channels: int
    sampled: int
    rows: int
    correlation: float
    correlation_distance: float
    covariance_distance: float
    effective_rank: float
    mutual_information: float
    normalized_mutual_information: float
    constant: int
    pairs: int
    bins: int


@dataclasses.dataclass(frozen=True)
class Shift:
    """The variance shift of one IC or BatchNormalization layer: the variance that it meets at
    inference over the one that it holds.

    Of each channel, the ratio is `(variance of the inputs at inference + epsilon) / (moving
    variance + epsilon)`, of what the layer would divide by and what it does divide by. It is 1
    where nothing shifted.

    Attributes:
        layer: The path of the layer.
        type: The name of its class.
        channels: How many channels it has.
        ratio: The geometric mean of the ratio over the channels.
        lowest: The lowest ratio of a channel.
        highest: The highest ratio of a channel.
        shift: The mean over the channels of the ratio or its inverse, whichever is larger, as in Li
            et al. (2019).
    """

    layer: str
    type: str
    channels: int
    ratio: float
    lowest: float
    highest: float
    shift: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What `measure` found; `str` gives it as tables.

    Attributes:
        model: The name of the model.
        rows: An `Input` for each weight layer and mode, in the order in which the layers run.
        shifts: A `Shift` for each IC and BatchNormalization layer.
        skipped: `(layer, reason)` for each weight layer that was not measured.
        advice: One sentence for each thing that would pay, be it recalibrating, another order or
            another rate, with the layers and the call.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [keras.Input((4,)), keras_ic.IC(0.1), keras.layers.Dense(2, name="dense")]
    )
    report = keras_ic.measure(model, np.random.default_rng(0).normal(size=(500, 4)), verbose=0)
    assert [(row.layer, row.mode) for row in report.rows] == [
        ("dense", "training"),
        ("dense", "inference"),
    ]
    assert report.to_dict()["shifts"][0]["ratio"] > 0
    ```
    """

    model: str
    rows: tuple[Input, ...]
    shifts: tuple[Shift, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    advice: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; what is not a finite number is None."""
        return {
            "model": self.model,
            "rows": [_as_json(row) for row in self.rows],
            "shifts": [_as_json(shift) for shift in self.shifts],
            "skipped": [{"layer": layer, "reason": reason} for layer, reason in self.skipped],
            "advice": list(self.advice),
        }

    def __str__(self) -> str:
        inputs = text_table.text(HEADER, map(_cells, self.rows))
        parts = [f"{self.model}: the inputs of its weight layers", inputs]
        if self.shifts:
            rows = [
                (
                    shift.layer,
                    shift.type,
                    str(shift.channels),
                    *map(_number, (shift.ratio, shift.lowest, shift.highest, shift.shift)),
                )
                for shift in self.shifts
            ]
            shifts = text_table.text(SHIFT_HEADER, rows)
            parts += ["", "Variance at inference over moving variance", shifts]
        if self.skipped:
            parts += ["", "Not measured", text_table.text(("Layer", "Reason"), self.skipped)]
        if self.shifts:
            settled = ["None: the moving statistics are those of the data."]
            parts += ["", "Advice", *(f"- {line}" for line in self.advice or settled)]
        return "\n".join(parts)

    def plot(self, path: Any) -> None:
        """Draws the measures against depth, one panel each, and saves the figure.

        Args:
            path: Path of the file; its ending chooses the format, as `.png` or `.svg`.

        Raises:
            ImportError: If Matplotlib is not installed.

        Example:

        ```python
        import pathlib, tempfile
        import keras
        import keras_ic
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras_ic.IC(0.1), keras.layers.Dense(2)])
        report = keras_ic.measure(
            model, np.random.default_rng(0).normal(size=(64, 4)).astype("float32"), verbose=0
        )
        path = pathlib.Path(tempfile.mkdtemp(), "independence.png")
        report.plot(path)
        assert path.exists()
        ```
        """
        figure.draw(self, path)


def _cells(row: Input) -> tuple[str, ...]:
    """The row of the table."""
    whole = row.sampled == row.channels
    return (
        row.layer,
        row.type,
        row.mode,
        str(row.channels) if whole else f"{row.sampled} of {row.channels}",
        *(_number(getattr(row, name)) for name in COLUMNS.values()),
        f"{row.effective_rank:.1f}" if math.isfinite(row.effective_rank) else "-",
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _as_json(row) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in dataclasses.asdict(row).items()
    }
