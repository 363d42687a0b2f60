"""Compares what `keras-ic measure -o FILE` wrote of several networks: means over the weight layers,
and a figure by layer.

    python -m benchmarks.compare_independence FILE.json ... --out figure.png

The first weight layer, which reads the images, is left out.
"""

import argparse
import json
import statistics
from pathlib import Path

# Of Okabe and Ito's palette, which colour-blind readers tell apart: black is the baseline.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
COLUMNS = {
    "correlation": "mean absolute correlation",
    "normalized_mutual_information": "mutual information, normalized",
}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="where to draw the figure")
    arguments = parser.parse_args(argv)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, len(COLUMNS))
    print(
        "| network | "
        + " | ".join(
            f"{title}, {mode}" for title in COLUMNS.values() for mode in ("training", "inference")
        )
        + " |"
    )
    print("| --- " * (1 + 2 * len(COLUMNS)) + "|")
    for file in arguments.files:
        rows = json.loads(file.read_text())["rows"]
        name = file.stem.removeprefix("independence-")
        cells = []
        for axis, (column, title) in zip(axes, COLUMNS.items(), strict=True):
            for mode, style in (("training", "-"), ("inference", ":")):
                values = [row[column] for row in rows if row["mode"] == mode][1:]
                cells.append(f"{statistics.mean(values):.3f}")
                axis.plot(
                    range(2, len(values) + 2),
                    values,
                    style,
                    color=COLOURS[arguments.files.index(file) % len(COLOURS)],
                    label=f"{name}, {mode}",
                )
            axis.set(xlabel="weight layer, from the input", ylabel=title, ylim=(0, None))
            axis.xaxis.get_major_locator().set_params(integer=True)
        print(f"| {name} | {' | '.join(cells)} |")
    axes[0].legend(frameon=False, fontsize=8)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=150)


if __name__ == "__main__":
    main()
