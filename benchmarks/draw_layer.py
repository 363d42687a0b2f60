"""Draws what `benchmarks/layer.py` measured in training steps in float32, and prints it as one
table.

    python -m benchmarks.draw_layer benchmarks/results --out docs/images/layer.png

One panel a backend and mode, each point in units of stock BatchNormalization and then stock
Dropout, measured in the same process.
"""

import argparse
import json
from pathlib import Path

from benchmarks.layer import table

STYLES = {
    "BN+Dropout": {"color": "0.6", "marker": "v"},
    "BN": {"color": "black", "marker": "s"},
    "IC": {"color": "#D55E00", "marker": "o"},
}


def draw(rows, path):
    """The figure, as the ending of the path says."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row["backend"], row["mode"]) for row in rows))
    figure = Figure(figsize=(8, 2.7 * ((len(panels) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        shown = [row for row in rows if (row["backend"], row["mode"]) == panel]
        for index, (name, style) in enumerate(STYLES.items()):
            heights = [
                row["milliseconds"][name] / row["milliseconds"]["BN+Dropout"] for row in shown
            ]
            axis.plot(
                [place + (index - 1) * 0.2 for place in range(len(shown))],
                heights,
                linestyle="none",
                label=f"stock {name}" if index < 2 else name,
                **style,
            )
        for place, row in enumerate(shown):
            floor = row["floor"] / row["milliseconds"]["BN+Dropout"]
            axis.plot(
                [place - 0.42, place + 0.42],
                [floor, floor],
                color="black",
                linewidth=1,
                label="time to move the values" if place == 0 else None,
            )
        axis.set_xticks(range(len(shown)), [label(row["shape"]) for row in shown], fontsize=8)
        axis.set_title(" ".join(panel), fontsize=10)
        axis.set_ylabel("time of a step", fontsize=9)
        axis.set_yscale("log")
        axis.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
        axis.grid(axis="y", color="0.85", linewidth=0.6)
        axis.set_ylim(0.005, 1.5)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def label(shape):
    """The shape in two lines."""
    sizes = [str(size) for size in shape]
    return " x ".join(sizes[:-2]) + (" x\n" if sizes[:-2] else "") + " x ".join(sizes[-2:])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where layer-BACKEND.json are")
    parser.add_argument("--out", type=Path, help="where to draw the figure")
    arguments = parser.parse_args(argv)
    rows = []
    for name in ("tensorflow", "jax", "torch"):
        if (arguments.folder / f"layer-{name}.json").exists():
            rows += json.loads((arguments.folder / f"layer-{name}.json").read_text())["rows"]
    rows = [row for row in rows if row["what"] == "training" and row["policy"] == "float32"]
    print(table(rows))
    if arguments.out:
        draw(rows, arguments.out)


if __name__ == "__main__":
    main()
