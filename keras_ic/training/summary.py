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
class Difference:
    """The accuracy of a configuration above its baseline's, in percentage points.

    Attributes:
        mean: Float, the mean over the seeds that both have; of all seeds, if they share none.
        half_width: Float, half of the 95 % interval of the mean of the differences, paired by the
            seed, of Student's t; None for fewer than two seeds that both have.
    """

    mean: float
    half_width: float | None

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" + (
            "" if self.half_width is None else f" ± {self.half_width:.2f}"
        )


@dataclasses.dataclass(frozen=True)
class Summary:
    """The runs of one configuration with different seeds. Every list has one value a seed;
    accuracies are in percent.

    Attributes:
        label: String, what tells this configuration from the others of the experiment.
        config: The `TrainingConfig` of the first run.
        seeds: List of integers.
        parameters: Integer, the trainable parameters.
        training: List of the accuracies on the training images in the last epoch.
        final: List of the accuracies after the last epoch.
        cross_entropy: List of the cross entropies in nats after the last epoch, on the images of
            the accuracies; nan where the record does not know it.
        fluctuation: List, in percentage points: how far the accuracy of an epoch is from the mean
            of its two neighbours, on average over the first half of the epochs, so that steady
            progress counts as none. Nan for fewer than three epochs in the half.
        step_milliseconds: List of the medians of a training step's time over the epochs.
        recalibrated: List of the accuracies after `recalibrate`, empty if it was not asked for.
        recalibrated_cross_entropy: List of the cross entropies after `recalibrate`, likewise.
        top5: List of the shares of images with their class among the five likeliest, after the last
            epoch; empty but for ImageNet.
        curves: Array `(seeds, epochs)` of accuracies.
        minutes: Array `(seeds, epochs)` of the time since the beginning, each epoch at the run's
            median, so that a pause or other work on the machine does not show.
        baseline: The label of the order conv-bn-relu with the same recipe and no dropout, None if
            there are no runs of it or this is it.
        first_epochs: List of the first epochs, from 1, at the mean final accuracy of the baseline
            (of itself, if it is one); None where it is not reached.
        difference: `Difference` of the final accuracies from the baseline's; None without one.
        recalibrated_difference: `Difference` of the accuracies after `recalibrate`, likewise.
    """

    label: str
    config: TrainingConfig
    seeds: list[int]
    parameters: int
    training: list[float]
    final: list[float]
    cross_entropy: list[float]
    fluctuation: list[float]
    step_milliseconds: list[float]
    recalibrated: list[float]
    recalibrated_cross_entropy: list[float]
    top5: list[float]
    curves: Any
    minutes: Any
    baseline: str | None = None
    first_epochs: list[int | None] = dataclasses.field(default_factory=list)
    difference: Difference | None = None
    recalibrated_difference: Difference | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("config", "curves", "minutes")
        }
        for name in ("difference", "recalibrated_difference"):
            values[name] = values[name] and dataclasses.asdict(values[name])
        recipe = self.config.to_dict()
        recipe.pop("seed")
        curves = [[round(float(value), 4) for value in curve] for curve in self.curves]
        return {
            **values,
            "configuration": recipe,
            **{
                name: [value if np.isfinite(value) else None for value in values[name]]
                for name in ("fluctuation", "cross_entropy", "recalibrated_cross_entropy")
            },
            "curves": curves,
        }


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, as text; of one value the value, of none or a nan nothing."""
    if not np.isfinite(values).all():
        return ""
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
    half = curves[:, : -(-curves.shape[1] // 2)]
    away = np.abs(half[:, 1:-1] - (half[:, :-2] + half[:, 2:]) / 2)
    recalibrated = [run.recalibrated for run in runs if run.recalibrated is not None]
    return Summary(
        label=label,
        config=runs[0].config,
        seeds=[run.config.seed for run in runs],
        parameters=runs[0].head["parameters"],
        training=[100 * run.epochs[-1]["accuracy"] for run in runs],
        final=curves[:, -1].tolist(),
        cross_entropy=[run.epochs[-1]["val_loss"] for run in runs],
        fluctuation=away.mean(1).tolist() if away.size else [float("nan")] * len(runs),
        step_milliseconds=[1000 * float(np.median(run.values("step_seconds"))) for run in runs],
        recalibrated=[100 * values["val_accuracy"] for values in recalibrated],
        recalibrated_cross_entropy=[values["val_loss"] for values in recalibrated],
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
    return dataclasses.replace(
        summary,
        baseline=baseline.label,
        first_epochs=firsts,
        difference=_difference(summary.seeds, summary.final, baseline.seeds, baseline.final),
        recalibrated_difference=(
            _difference(summary.seeds, summary.recalibrated, baseline.seeds, baseline.recalibrated)
            if summary.recalibrated
            else None
        ),
    )


def _difference(
    seeds: list[int], values: list[float], other_seeds: list[int], others: list[float]
) -> Difference:
    other = dict(zip(other_seeds, others, strict=True))
    paired = [
        value - other[seed] for seed, value in zip(seeds, values, strict=True) if seed in other
    ]
    if not paired:
        return Difference(float(np.mean(values) - np.mean(others)), None)
    half_width = None
    if len(paired) > 1:
        quantile = needed("scipy.stats", "SciPy", "plot").t.ppf(0.975, len(paired) - 1)
        half_width = float(quantile * np.std(paired, ddof=1) / np.sqrt(len(paired)))
    return Difference(float(np.mean(paired)), half_width)
