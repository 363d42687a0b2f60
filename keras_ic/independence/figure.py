"""The figure of a report: each measure against depth."""

from typing import Any

from keras_ic.utils.lazy_imports import needed

PANELS = {
    "correlation": "Mean |correlation|",
    "mutual_information": "Mutual information, nats",
    "correlation_distance": "Correlation matrix: distance from I",
    "covariance_distance": "Covariance matrix: distance from I",
    "effective_rank": "Effective rank / channels looked at",
}
# Of Okabe and Ito's palette, which colour-blind readers tell apart. The markers differ, too.
MODES = {
    "training": {"color": "#D55E00", "marker": "o"},
    "inference": {"color": "#0072B2", "marker": "s", "markerfacecolor": "none"},
}
MOST_NAMES = 8  # More names than this do not fit below a panel.


def draw(report: Any, path: Any) -> None:
    """Draws the measures of a `Report`, one panel each, and saves the figure."""
    figure = needed("matplotlib.figure", "Matplotlib", "plot").Figure(
        figsize=(10, 9), layout="constrained"
    )
    axes = figure.subplots(3, 2).ravel()
    names = list(dict.fromkeys(row.layer for row in report.rows))
    depths = {name: depth for depth, name in enumerate(names, 1)}
    for panel, (measure, title) in zip(axes, PANELS.items(), strict=False):
        for mode, style in MODES.items():
            rows = [row for row in report.rows if row.mode == mode]
            values = [
                getattr(row, measure) / (row.sampled if measure == "effective_rank" else 1)
                for row in rows
            ]
            panel.plot(
                [depths[row.layer] for row in rows],
                values,
                linestyle="none",
                markersize=4.5,
                label=mode,
                **style,
            )
        _dress(panel, title, names, "Weight layer, by depth")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False
    )
    _draw_shifts(axes[-1], report.shifts)
    figure.suptitle(f"{report.model}: the inputs of its weight layers", x=0.01, ha="left")
    figure.savefig(path, dpi=120)


def _draw_shifts(panel, shifts) -> None:
    if not shifts:
        panel.set_axis_off()
        return
    spread = [
        [shift.ratio - shift.lowest for shift in shifts],
        [shift.highest - shift.ratio for shift in shifts],
    ]
    panel.errorbar(
        range(1, len(shifts) + 1),
        [shift.ratio for shift in shifts],
        spread,
        color=MODES["inference"]["color"],
        fmt="s",
        markersize=4.5,
        markerfacecolor="white",
        linewidth=1,
    )
    panel.axhline(1, color="#666666", linewidth=0.8, zorder=0)
    panel.set_yscale("log")
    _dress(
        panel,
        "Variance at inference / moving variance: mean and range",
        [shift.layer for shift in shifts],
        "Normalization, by depth",
    )


def _dress(panel, title: str, names: list[str], depth: str) -> None:
    panel.set_title(title, fontsize=10, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8)
    panel.set_xlim(0.4, len(names) + 0.6)
    if len(names) <= MOST_NAMES:
        panel.set_xticks(
            range(1, len(names) + 1),
            [name.rsplit("/", 1)[-1] for name in names],
            rotation=20,
            ha="right",
        )
    else:
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_xlabel(depth, fontsize=9)
