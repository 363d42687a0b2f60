"""The figures of a search: rates against accuracy with the trend, and parallel coordinates."""

import pathlib
from typing import Any

import numpy as np

from keras_ic.applications.orders import ORDERS
from keras_ic.training.config import TrainingConfig
from keras_ic.training.rate_schedule import rates_over_depth
from keras_ic.utils.lazy_imports import needed

DEPTHS = 30  # in which a network is cut to say what its rates are in a third of its depth
RESAMPLES = 500
ABSENT = -0.15  # the height of what a trial does not have
PARTS = ("all IC layers", "first third of the depth", "second third", "last third")


def draw_rates(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Mean rate, and mean rate of each third of the depth, against the accuracy of the validation
    images.

    The trend is a parabola fitted to the trials, with a band that holds 90 % of those of resampled
    trials (Efron, 1979).
    """
    trials = [(TrainingConfig(**result["configuration"]), result) for result in results]
    shown = [
        (configuration, result)
        for configuration, result in trials
        if ORDERS[configuration.order].has_ic
    ]
    usual = [
        100 * result["score"]
        for configuration, result in trials
        if not ORDERS[configuration.order].has_ic and result["status"] == "COMPLETED"
    ]
    by_part = np.array([_by_part(configuration) for configuration, _ in shown]).reshape(
        len(shown), len(PARTS)
    )
    with _canvas(len(PARTS), (15, 4.2)) as (pyplot, canvas, axes):
        for index, (one, part) in enumerate(zip(axes, PARTS, strict=True)):
            for status, marker, label in (
                ("COMPLETED", "o", "trial, lowest to highest seed"),
                ("PRUNED", "x", "stopped as poor"),
            ):
                members = [
                    number for number, (_, result) in enumerate(shown) if result["status"] == status
                ]
                if members:
                    scores = (
                        100
                        * np.array(
                            [
                                [result["score"], min(result["scores"]), max(result["scores"])]
                                for _, result in shown
                            ]
                        )[members]
                    )
                    away = np.abs(scores[:, 1:] - scores[:, :1]).T
                    one.errorbar(
                        by_part[members, index],
                        scores[:, 0],
                        away,
                        fmt=marker,
                        color="tab:blue",
                        alpha=0.6,
                        markersize=4,
                        label=label,
                    )
            whole = [
                number
                for number, (_, result) in enumerate(shown)
                if result["status"] == "COMPLETED"
            ]
            _draw_trend(
                one,
                by_part[whole, index],
                100 * np.array([shown[number][1]["score"] for number in whole]),
            )
            for score in usual:
                one.axhline(
                    score,
                    color="black",
                    alpha=0.3,
                    linewidth=0.8,
                    label="usual order" if score == usual[0] else None,
                )
            one.set(xlabel=f"mean rate, {part}")
        low, high = (
            min(min(result["scores"]) for result in results),
            max(max(result["scores"]) for result in results),
        )
        edge = 5 * (high - low) + 0.1  # percentage points; the band of few trials goes far beyond
        axes[0].set(
            ylabel="accuracy of the validation images, %",
            ylim=(100 * low - edge, 100 * high + edge),
        )
        axes[0].legend(frameon=False, fontsize=8)
        canvas.savefig(path, dpi=130)
        pyplot.close(canvas)


def _by_part(configuration: TrainingConfig) -> list[float]:
    over = np.array(rates_over_depth(configuration, DEPTHS))
    return [over.mean(), *(part.mean() for part in np.array_split(over, 3))]


def _draw_trend(axes: Any, x: np.ndarray, y: np.ndarray) -> None:
    if len(np.unique(x)) < 4 or len(x) < 6:
        return
    grid = np.linspace(x.min(), x.max(), 50)
    random = np.random.RandomState(0)
    curves = []
    for _ in range(RESAMPLES):
        members = random.randint(len(x), size=len(x))
        if len(np.unique(x[members])) > 3:
            curves.append(np.polyval(np.polyfit(x[members], y[members], 2), grid))
    axes.plot(
        grid, np.polyval(np.polyfit(x, y, 2), grid), color="tab:red", label="trend, 90 % band"
    )
    axes.fill_between(
        grid, *np.percentile(curves, [5, 95], axis=0), color="tab:red", alpha=0.12, linewidth=0
    )


def draw_coordinates(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """A line a trial through an axis for each hyperparameter, below it where the trial has none;
    coloured by the accuracy, the best on top.
    """
    names = list(dict.fromkeys(name for result in results for name in result["values"]))
    columns = [[result["values"].get(name) for result in results] for name in names]
    scores = 100 * np.array([result["score"] for result in results])
    places = [*(_places(column) for column in columns), _places(scores.tolist())]
    colours = places[-1][0]
    with _canvas(1, (max(2 * len(places), 7), 4.6)) as (pyplot, canvas, axes):
        (one,) = axes
        palette = pyplot.get_cmap("viridis")
        for number in np.argsort(scores):
            heights = [
                ABSENT if height is None else height
                for height in (place[0][number] for place in places)
            ]
            one.plot(
                range(len(places)),
                heights,
                color=palette(colours[number]),
                marker=".",
                linewidth=1.2,
                alpha=0.8,
            )
        for index, (_, ticks) in enumerate(places):
            one.vlines(index, 0, 1, color="grey", linewidth=0.6)
            if None in places[index][0]:
                one.text(index, ABSENT, " none", fontsize=7, va="center")
            for height, label in ticks:
                one.text(index, height, f" {label}", fontsize=7, va="center")
        one.set(xlim=(-0.2, len(places) - 0.75), yticks=[])
        one.spines[["left", "bottom"]].set_visible(False)
        one.set_xticks(
            range(len(places)), [*(name.replace("_", " ") for name in names), "accuracy, %"]
        )
        canvas.savefig(path, dpi=130)
        pyplot.close(canvas)


def _places(values: list[Any]) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Heights from 0 to 1, None for absent values, and the ticks."""
    present = [value for value in values if value is not None]
    if isinstance(present[0], str):
        kinds = sorted(set(present))
        heights = {kind: index / max(len(kinds) - 1, 1) for index, kind in enumerate(kinds)}
        return [None if value is None else heights[value] for value in values], [
            (height, kind) for kind, height in heights.items()
        ]
    low, high = min(present), max(present)
    logarithmic = low > 0 and high / low > 5
    scaled = np.log if logarithmic else np.asarray
    span = float(scaled(high) - scaled(low)) or 1.0
    ticks = [(0.0, f"{low:.3g}"), *([(1.0, f"{high:.3g}")] if high > low else [])]
    return [
        None if value is None else float(scaled(value) - scaled(low)) / span for value in values
    ], ticks


class _canvas:
    """A figure of some axes side by side, in the style of the project's."""

    def __init__(self, number: int, size: tuple[float, float]):
        self.number, self.size = number, size

    def __enter__(self):
        pyplot = needed("matplotlib.pyplot", "matplotlib", "tune")
        self.context = pyplot.rc_context(
            {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
        )
        self.context.__enter__()
        canvas, axes = pyplot.subplots(
            1, self.number, figsize=self.size, layout="constrained", sharey=True, squeeze=False
        )
        return pyplot, canvas, axes[0]

    def __exit__(self, *error):
        return self.context.__exit__(*error)
