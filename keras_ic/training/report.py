"""Many records as a table and figures."""

import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_ic import saving
from keras_ic.training.figures import draw_curves, draw_recalibrated
from keras_ic.training.presets import preset_of
from keras_ic.training.record import find
from keras_ic.training.summary import EXPERIMENT, Summary, spread, summarize
from keras_ic.utils.lazy_imports import needed

HEADER = (
    "network",
    "seeds",
    "training, %",
    "final, %",
    "above the baseline, points",
    "recalibrated, %",
    "above the baseline recalibrated, points",
    "top-5, %",
    "cross entropy",
    "cross entropy recalibrated",
    "epochs to the baseline's final",
    "fluctuation, points",
    "a step, ms",
)
NOTE = """Test accuracy and cross entropy in nats, unless a heading names other images, mean ±
standard deviation over the seeds; training accuracy in the last epoch. The baseline of a row is
conv-bn-relu with the same recipe and no dropout. A difference is paired by the seed, mean ± half
of its 95 % interval (Student's t). Fluctuation: how far an epoch is from the mean of its two
neighbours, over the first half of the epochs."""


def report(paths: Any, out: Any) -> list[Summary]:
    """Writes a table and figures of all finished runs in folders and the folders in them.

    In the folder `out` it leaves `table.md`, `summary.json` with all values and curves, and for
    each experiment (data, network, number of epochs) a figure of the accuracy by epoch and by
    minutes, the mean over the seeds with the band from the lowest to the highest, and a figure of
    the final accuracy as trained and after `recalibrate`, where all runs have both.

    Args:
        paths: Path or list of paths of folders that hold runs.
        out: Path of the folder to write to, which is made if it is not there.

    Returns:
        List of `Summary`.

    Raises:
        ValueError: If there is no finished run, a record is damaged, or two folders hold the same
            run.
        ImportError: If matplotlib or SciPy is not installed.
        OSError: If `out` cannot be written.

    Example:

    ```python
    import pathlib, tempfile
    from keras_ic.training import grid, report, run

    folder = pathlib.Path(tempfile.mkdtemp())
    for config in grid(data="digits", model="small", order=["usual", "ic"], epochs=2):
        run(config, folder / config.name, verbose=0)
    summaries = report(folder, folder / "report")
    assert [summary.label for summary in summaries] == ["conv-bn-relu", "relu-ic-conv, rate 0.05"]
    assert (folder / "report" / "table.md").exists()
    ```
    """
    records = find(paths)
    summaries = summarize(records)
    needed("matplotlib", "matplotlib", "plot").use("Agg")
    pyplot = needed("matplotlib.pyplot", "matplotlib", "plot")
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[str] = []
    names: dict[str, list[Summary]] = {}
    for summary in summaries:
        names.setdefault(experiment(summary), []).append(summary)
    for name, members in names.items():
        figure = re.sub(r"\W+", "-", name)
        with saving.replacing(folder / f"{figure}.png") as new:
            draw_curves(pyplot, name, members, new)
        shown = f"![{name}]({figure}.png)\n"
        if all(summary.recalibrated for summary in members):
            with saving.replacing(folder / f"{figure}-recalibrated.png") as new:
                draw_recalibrated(pyplot, name, members, new)
            shown += f"\n![as trained and recalibrated]({figure}-recalibrated.png)\n"
        parts.append(f"## {name}\n\n{_common(members)}{table(members)}\n\n{shown}")
    unfinished = [
        f"{record.folder.name} ({len(record.epochs)} of {record.config.epochs})"
        for record in records
        if not record.is_finished
    ]
    if unfinished:
        parts.append(f"Left out, since not finished (epochs): {', '.join(unfinished)}.\n")
    versions = sorted(
        {
            ", ".join(f"{name} {number}" for name, number in record.head["versions"].items())
            for record in records
            if record.is_finished
        }
    )
    parts.append("\n".join([NOTE, "", *(f"Versions: {line}." for line in versions)]) + "\n")
    with saving.replacing(folder / "table.md") as new:
        new.write_text("\n".join(parts), encoding="utf-8")
    with saving.replacing(folder / "summary.json") as new:
        new.write_text(
            json.dumps([summary.to_dict() for summary in summaries], indent=1) + "\n",
            encoding="utf-8",
        )
    return summaries


def experiment(summary: Summary) -> str:
    """The name of the experiment that a summary belongs to."""
    data, model, train_size, image_size, epochs, validation = (
        getattr(summary.config, name, None) for name in EXPERIMENT
    )
    size = f", {train_size:,} images" if train_size else ""
    pixels = f" at {image_size} pixels" if image_size else ""
    judged = f", judged on {100 * validation:g} % of the training images" if validation else ""
    return (
        f"{model} on {data}{pixels}{size}, {epochs}"
        f" epoch{'s' if summary.config.epochs > 1 else ''}{judged}"
    )


def table(summaries: Sequence[Summary]) -> str:
    """The summaries of one experiment as a Markdown table."""
    shown = [_row(summary) for summary in summaries]
    keep = [index for index in range(len(HEADER)) if index < 2 or any(row[index] for row in shown)]
    lines = [HEADER, ["---"] * len(HEADER), *shown]
    return "\n".join("| " + " | ".join(line[index] for index in keep) + " |" for line in lines)


def _common(summaries: Sequence[Summary]) -> str:
    """What all runs of an experiment have other than the default."""
    first = summaries[0].config
    defaults = preset_of(first.data, order=first.order).to_dict()
    skipped = {*EXPERIMENT, "order", "rate", "seed"}
    names = [
        name
        for name in defaults
        if name not in skipped and len({getattr(each.config, name) for each in summaries}) == 1
    ]
    said = [
        f"{name.replace('_', ' ')} {getattr(first, name)}"
        for name in names
        if getattr(first, name) != defaults[name]
    ]
    return f"All with {', '.join(said)}.\n\n" if said else ""


def _row(summary: Summary) -> list[str]:
    reached = ", ".join("never" if epoch is None else str(epoch) for epoch in summary.first_epochs)
    return [
        summary.label,
        str(len(summary.seeds)),
        spread(summary.training),
        spread(summary.final),
        str(summary.difference or ""),
        spread(summary.recalibrated),
        str(summary.recalibrated_difference or ""),
        spread(summary.top5),
        spread(summary.cross_entropy),
        spread(summary.recalibrated_cross_entropy),
        reached if summary.baseline or any(summary.first_epochs) else "",
        "" if np.isnan(summary.fluctuation).any() else f"{np.mean(summary.fluctuation):.2f}",
        f"{np.median(summary.step_milliseconds):.1f}",
    ]
