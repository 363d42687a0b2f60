"""What many runs say: means over seeds, and whether a difference is more than their spread."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_ic.applications.orders import ORDERS
from keras_ic.training.config import OF_IC, TrainingConfig
from keras_ic.training.presets import preset_of
from keras_ic.training.record import Record
from keras_ic.utils.lazy_imports import needed

# Runs that differ in one of these are of different experiments, and stand in different tables.
EXPERIMENT = ("data", "model", "train_size", "image_size", "epochs", "validation")


@dataclasses.dataclass(frozen=True)
class Summary:
    """The runs of one configuration with different seeds. Every list has one value a seed;
    accuracies are in percent.

    Attributes:
        label: String, what tells this configuration from the others of the experiment.
        config: The `TrainingConfig` of the first run.
        seeds: List of integers.
        parameters: Integer, the trainable parameters.
        final: List of the accuracies after the last epoch.
        best: List of the best accuracies of any epoch.
        last_tenth: List of the means over the last 10 % of the epochs (at least one).
        fluctuation: List, in percentage points: how far the accuracy of an epoch is from the mean
            of its two neighbours, on average over the first half of the epochs, so that steady
            progress counts as none. Nan for fewer than three epochs in the half.
        step_milliseconds: List of the medians of a training step's time over the epochs.
        recalibrated: List of the accuracies after `recalibrate`, empty if it was not asked for.
        top5: List of the shares of images with their class among the five likeliest, after the last
            epoch; empty but for ImageNet.
        curves: Array `(seeds, epochs)` of accuracies.
        minutes: Array `(seeds, epochs)` of the time since the beginning, each epoch at the run's
            median, so that a pause or other work on the machine does not show.
        baseline: The label of the order conv-bn-relu with the same recipe and no dropout, None if
            there are no runs of it or this is it.
        first_epochs: List of the first epochs, from 1, at the mean final accuracy of the baseline
            (of itself, if it is one); None where it is not reached.
        difference: Float, the mean final accuracy above the baseline's, in percentage points; None
            without a baseline.
        p_value: Float, of Welch's two-sided t-test of equal mean final accuracies (Welch, 1947);
            None for fewer than two seeds on a side.
    """

    label: str
    config: TrainingConfig
    seeds: list[int]
    parameters: int
    final: list[float]
    best: list[float]
    last_tenth: list[float]
    fluctuation: list[float]
    step_milliseconds: list[float]
    recalibrated: list[float]
    top5: list[float]
    curves: Any
    minutes: Any
    baseline: str | None = None
    first_epochs: list[int | None] = dataclasses.field(default_factory=list)
    difference: float | None = None
    p_value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("config", "curves", "minutes")
        }
        recipe = self.config.to_dict()
        recipe.pop("seed")
        curves = [[round(float(value), 4) for value in curve] for curve in self.curves]
        return {
            **values,
            "configuration": recipe,
            "fluctuation": [None if np.isnan(value) else value for value in self.fluctuation],
            "curves": curves,
        }


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, as text; of one value the value, of none nothing."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def summarize(records: Sequence[Record]) -> list[Summary]:
    """Summaries of finished runs, one for each configuration whatever its seed.

    Args:
        records: Sequence of `Record`; those that are not finished are left out.

    Returns:
        List of `Summary`: the experiments in the order of their names, and in each those of
            `keras_ic.applications.ORDERS` in their order.

    Raises:
        ValueError: If no run is finished, or two runs have the same configuration and seed.
        ImportError: If SciPy is not installed.

    Example:

    ```python
    import pathlib, tempfile
    from keras_ic.training import TrainingConfig, find, run, summarize

    folder = pathlib.Path(tempfile.mkdtemp())
    run(TrainingConfig(data="digits", model="small", epochs=1, train_size=64), folder, verbose=0)
    (summary,) = summarize(find(folder))
    assert summary.label == "relu-ic-conv, rate 0.05" and len(summary.final) == 1
    ```
    """
    groups: dict[Any, list[Record]] = {}
    for record in records:
        if record.is_finished:
            groups.setdefault(dataclasses.replace(record.config, seed=0), []).append(record)
    if not groups:
        folders = ", ".join(str(record.folder) for record in records)
        raise ValueError(
            "None of these runs is finished; give each its own command again and it goes on."
            f" Received: {folders}"
        )
    for runs in groups.values():
        runs.sort(key=lambda record: record.config.seed)
        for one, two in itertools.pairwise(runs):
            if one.config == two.config:
                raise ValueError(
                    "Two folders hold the same run; give one of them. Received:"
                    f" {str(one.folder)!r} and {str(two.folder)!r}"
                )
    made = []
    for experiment in sorted({_experiment(config) for config in groups}, key=str):
        members = [config for config in groups if _experiment(config) == experiment]
        labels = _labels(members)
        members.sort(
            key=lambda config: (
                list(ORDERS).index(config.order),
                config.rate,
                len(labels[config]),
                labels[config],
            )
        )
        summaries = {config: _summary(labels[config], groups[config]) for config in members}
        for config, summary in summaries.items():
            made.append(_compared(summary, summaries.get(_baseline(config))))
    return made


def _experiment(config: TrainingConfig) -> tuple:
    return tuple(getattr(config, name) for name in EXPERIMENT)


def _baseline(config: TrainingConfig) -> TrainingConfig:
    values: dict[str, Any] = {
        **OF_IC,
        "order": "conv-bn-relu",
        "dropout": 0.0,
        "per_channel": False,
    }
    return dataclasses.replace(config, **values)


def _labels(members: list[TrainingConfig]) -> dict[TrainingConfig, str]:
    """The order, the rate of the IC orders, and what else is not the default and not the same for
    all.
    """
    names = [
        field.name
        for field in dataclasses.fields(TrainingConfig)
        if field.name not in (*EXPERIMENT, "order", "rate", "seed")
    ]
    differing = [name for name in names if len({getattr(each, name) for each in members}) > 1]
    labels = {}
    for member in members:
        parts = [member.order] + ([f"rate {member.rate:g}"] if ORDERS[member.order].has_ic else [])
        neutral = preset_of(member.data, order=member.order)
        said = [name for name in differing if getattr(member, name) != getattr(neutral, name)]
        labels[member] = ", ".join(
            parts + [f"{name.replace('_', ' ')} {getattr(member, name)}" for name in said]
        )
    return labels


def _summary(label: str, runs: list[Record]) -> Summary:
    curves = 100 * np.array([run.values("val_accuracy") for run in runs])
    half, tenth = curves[:, : -(-curves.shape[1] // 2)], max(curves.shape[1] // 10, 1)
    away = np.abs(half[:, 1:-1] - (half[:, :-2] + half[:, 2:]) / 2)
    return Summary(
        label=label,
        config=runs[0].config,
        seeds=[run.config.seed for run in runs],
        parameters=runs[0].head["parameters"],
        final=curves[:, -1].tolist(),
        best=curves.max(1).tolist(),
        last_tenth=curves[:, -tenth:].mean(1).tolist(),
        fluctuation=away.mean(1).tolist() if away.size else [float("nan")] * len(runs),
        step_milliseconds=[1000 * float(np.median(run.values("step_seconds"))) for run in runs],
        recalibrated=[
            100 * run.recalibrated["val_accuracy"] for run in runs if run.recalibrated is not None
        ],
        top5=[100 * run.epochs[-1]["val_top5"] for run in runs if "val_top5" in run.epochs[-1]],
        curves=curves,
        minutes=np.stack(
            [
                np.arange(1, len(curve) + 1) * np.median(run.values("seconds")) / 60
                for curve, run in zip(curves, runs, strict=True)
            ]
        ),
    )


def _compared(summary: Summary, baseline: Summary | None) -> Summary:
    if baseline is None:
        return dataclasses.replace(summary, first_epochs=[None] * len(summary.seeds))
    goal = float(np.mean(baseline.final))
    firsts = [
        next((epoch for epoch, value in enumerate(curve.tolist(), 1) if value >= goal), None)
        for curve in summary.curves
    ]
    if baseline is summary:
        return dataclasses.replace(summary, first_epochs=firsts)
    p_value = None
    if (
        min(len(summary.seeds), len(baseline.seeds)) > 1
        and np.ptp(summary.final + baseline.final) > 0
    ):
        p_value = float(
            needed("scipy.stats", "SciPy", "plot")
            .ttest_ind(summary.final, baseline.final, equal_var=False)
            .pvalue
        )
    difference = float(np.mean(summary.final)) - goal
    return dataclasses.replace(
        summary,
        baseline=baseline.label,
        first_epochs=firsts,
        difference=difference,
        p_value=p_value,
    )
