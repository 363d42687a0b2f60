"""A callback that measures while a model trains."""

import json
import math
import pathlib
from typing import Any

import keras
import numpy as np

from keras_ic.independence.measuring import MODES, Meter, checked_options
from keras_ic.independence.report import COLUMNS, Report
from keras_ic.utils.data_adapters import checked_repeatable, checked_sizes
from keras_ic.utils.validation import checked_bool, positive_int

SCALARS = (*COLUMNS.values(), "effective_rank")


class IndependenceMonitor(keras.callbacks.Callback):
    """Measures at the end of epochs how independent the inputs of each weight layer are; see
    `keras_ic.measure`.

    It changes nothing in the training: the same weights come out with it and without it.

    What it measures is in the logs, and so in `History`, the progress bar, and callbacks that come
    after it in the list, such as `keras.callbacks.TensorBoard`: the mean over the layers of
    `independence/training/correlation`, `independence/inference/correlation`, the same of
    `mutual_information`, and `independence/variance_ratio`, the geometric mean over the
    normalizations.

    Args:
        data: What `measure` takes; it must give the same batches each time, so no generator.
        every: Positive integer, after how many epochs to measure. Defaults to `1`.
        record: Path of a file, to which one JSON line a measurement is appended: `epoch`, counted
            from 1, and what `Report.to_dict` gives. Defaults to `None`: none is written.
        per_layer: Boolean, whether the logs hold all measures of each layer in place of the means,
            as `independence/mode/measure/layer` and `independence/variance_ratio/layer`. Defaults
            to `False`.
        steps: Positive integer, how many batches to read. Defaults to `None`: all.
        batch_size: Positive integer, for arrays. Defaults to `None`: 32.
        channels: As in `measure`. Defaults to `64`.
        rows: As in `measure`. Defaults to `4096`.
        pairs: As in `measure`. Defaults to `128`.
        seed: As in `measure`. Defaults to `0`.

    Attributes:
        reports: The reports by epoch, counted from 1.

    Raises:
        ValueError: For an argument that the above excludes; at the beginning of the training for a
            model that cannot be measured.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    x, y = np.random.default_rng(0).normal(size=(64, 4)), np.zeros(64)
    model = keras.Sequential([keras.Input((4,)), keras_ic.IC(0.1), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    monitor = keras_ic.IndependenceMonitor(x, record="independence.jsonl")
    model.fit(x, y, epochs=2, callbacks=[monitor], verbose=0)
    assert list(monitor.reports) == [1, 2]
    ```
    """

    def __init__(
        self,
        data: Any,
        every: int = 1,
        record: Any = None,
        *,
        per_layer: bool = False,
        steps: int | None = None,
        batch_size: int | None = None,
        channels: int = 64,
        rows: int = 4096,
        pairs: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.data = checked_repeatable(data)
        self.every = positive_int("every", every)
        self.record = None if record is None else pathlib.Path(record)
        if self.record is not None and not self.record.parent.is_dir():
            raise ValueError(
                "There is no such folder for the record; make it first. Received:"
                f" record={str(record)!r}"
            )
        self.steps, self.batch_size = checked_sizes(steps, batch_size)
        self.per_layer = checked_bool("per_layer", per_layer)
        self.options = checked_options(channels, rows, pairs, seed)
        self.reports: dict[int, Any] = {}
        self._meter: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Looks the model over."""
        self._meter = Meter(self.model, **self.options)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measures, if it is the turn of this epoch."""
        if (epoch + 1) % self.every:
            return
        report = self._meter.measure(self.data, self.steps, batch_size=self.batch_size, verbose=0)
        self.reports[epoch + 1] = report
        if self.record is not None:
            with open(self.record, "a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch + 1, **report.to_dict()}) + "\n")
        if logs is not None:
            logs.update(_means(report) if not self.per_layer else _by_layer(report))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Lets go of what was compiled."""
        self._meter = None


def _by_layer(report: Report) -> dict[str, float]:
    values = {
        f"independence/{row.mode}/{name}/{row.layer}": getattr(row, name)
        for row in report.rows
        for name in SCALARS
    }
    values.update(
        {f"independence/variance_ratio/{shift.layer}": shift.ratio for shift in report.shifts}
    )
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _means(report: Report) -> dict[str, float]:
    sets: dict[str, list[float]] = {
        f"independence/{mode}/{name}": [
            getattr(row, name) for row in report.rows if row.mode == mode
        ]
        for mode in MODES
        for name in ("correlation", "mutual_information")
    }
    sets["independence/variance_ratio"] = [math.log(shift.ratio) for shift in report.shifts]
    means = {
        name: np.mean([value for value in values if math.isfinite(value)] or [math.nan])
        for name, values in sets.items()
    }
    means["independence/variance_ratio"] = np.exp(means["independence/variance_ratio"])
    return {name: float(value) for name, value in means.items() if math.isfinite(value)}
