"""The figure of a search: rates against accuracy, with the trend."""

import pathlib
from typing import Any

import numpy as np

from keras_ic.applications.orders import ORDERS
from keras_ic.training.config import TrainingConfig
from keras_ic.training.rate_schedule import rates_over_depth
from keras_ic.utils.lazy_imports import needed

DEPTHS = 30  # in which a network is cut to say what its rates are in a third of its depth
RESAMPLES = 500
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
    baselines = [
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
            for score in baselines:
                one.axhline(
                    score,
                    color="black",
                    alpha=0.3,
                    linewidth=0.8,
                    label="order without IC layers" if score == baselines[0] else None,
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
