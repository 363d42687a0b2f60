"""The figures of a report."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_ic.applications.orders import ORDERS
from keras_ic.training.summary import Summary

STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
# Colours of Okabe and Ito, which colour-blind readers tell apart; an order has one in every figure.
OKABE_ITO = ("#000000", "#56b4e9", "#d55e00", "#cc79a7", "#e69f00", "#0072b2")
COLOURS = dict(zip(ORDERS, OKABE_ITO, strict=True))
LINES = ("-", "--", ":", "-.")
WAYS = {"as trained": "#d55e00", "recalibrated": "#0072b2"}


def draw_curves(pyplot: Any, name: str, summaries: Sequence[Summary], path: pathlib.Path) -> None:
    """The accuracy by epoch and by minutes, with the band from the lowest to the highest seed."""
    with pyplot.rc_context(STYLE):
        canvas, axes = pyplot.subplots(1, 2, figsize=(12, 4.8), layout="constrained", sharey=True)
        drawn = dict.fromkeys(COLOURS, 0)
        for summary in summaries:
            order = summary.config.order
            colour, line = COLOURS[order], LINES[drawn[order] % len(LINES)]
            drawn[order] += 1
            mean = summary.curves.mean(0)
            by_time = summary.minutes.mean(0)
            for one, x in zip(axes, (np.arange(1, len(mean) + 1), by_time), strict=True):
                one.plot(
                    x,
                    mean,
                    color=colour,
                    linestyle=line,
                    linewidth=1.8,
                    marker="." if len(mean) < 3 else "",
                    label=f"{summary.label} ({len(summary.seeds)})",
                )
                one.fill_between(
                    x,
                    summary.curves.min(0),
                    summary.curves.max(0),
                    color=colour,
                    alpha=0.12,
                    linewidth=0,
                )
        axes[0].set(xlabel="epoch", ylabel="accuracy, %")
        axes[0].xaxis.get_major_locator().set_params(integer=True)
        axes[1].set(xlabel="minutes, at the median time of an epoch")
        axes[0].legend(frameon=False, fontsize=9, title="(seeds)", alignment="left")
        canvas.suptitle(name)
        canvas.savefig(path, dpi=130)
        pyplot.close(canvas)


def draw_recalibrated(
    pyplot: Any, name: str, summaries: Sequence[Summary], path: pathlib.Path
) -> None:
    """The final accuracies as trained and after `recalibrate`: each seed, and their mean."""
    arms = list(summaries)[::-1]
    with pyplot.rc_context(STYLE):
        canvas, axes = pyplot.subplots(figsize=(8, 1.4 + 0.4 * len(arms)), layout="constrained")
        for place, arm in enumerate(arms):
            both = (arm.final, arm.recalibrated)
            means = [float(np.mean(values)) for values in both]
            axes.plot(means, [place] * 2, color="0.75", linewidth=4, zorder=1)
            for (way, colour), values, mean in zip(WAYS.items(), both, means, strict=True):
                axes.scatter(values, [place] * len(values), s=14, color=colour, alpha=0.5, zorder=2)
                axes.scatter(mean, place, s=90, color=colour, label=way, zorder=3)
        axes.set_yticks(range(len(arms)), [f"{arm.label} ({len(arm.seeds)})" for arm in arms])
        axes.set_xlabel("final accuracy, % (large: mean; small: one seed)")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        handles, labels = axes.get_legend_handles_labels()
        canvas.legend(handles[:2], labels[:2], frameon=False, loc="outside lower center", ncols=2)
        canvas.suptitle(name)
        canvas.savefig(path, dpi=130)
        pyplot.close(canvas)
