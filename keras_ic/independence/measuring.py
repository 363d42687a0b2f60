"""Runs a model over data in both modes and measures what its weight layers read."""

import collections
from typing import Any

import keras
import numpy as np

from keras_ic.independence import estimators
from keras_ic.independence.activations import Sample, paddings, paths, watched_layers
from keras_ic.independence.advice import advise
from keras_ic.independence.report import Input, Report, Shift
from keras_ic.independence.running_covariance import RunningCovariance
from keras_ic.surgery.layer_traits import WEIGHT_LAYERS, unwrap
from keras_ic.surgery.linear_folding import as_array
from keras_ic.utils.data_adapters import inputs_of, random_states_kept
from keras_ic.utils.keras_internals import sublayers
from keras_ic.utils.layer_hooks import PooledMoments, Recorder
from keras_ic.utils.validation import checked_model, checked_seed, positive_int, several_int

MODES = ("training", "inference")


def measure(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    *,
    batch_size: int | None = None,
    channels: int = 64,
    rows: int = 4096,
    pairs: int = 128,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Report:
    """Measures how independent the inputs of each weight layer are, in training and at inference,
    and how far moving statistics are off.

    What counts as a weight layer is what counts for `rewrite`: dense, convolutional, depthwise,
    separable, transposed and einsum layers, be they in nested models, inside other layers, or
    wrapped. Of a layer that is called several times, the inputs of all calls are taken together. In
    training mode, normalizations use the statistics of the batch, and dropout drops; the rows are
    what the weight layer then reads, zeros of dropout included, but not those of a `ZeroPadding`
    layer directly before it.

    The model is left as it was: weights, moving statistics, random states, and the global random
    state.

    It streams. Of each weight layer's input, a random choice of `channels` channels is looked at,
    and of each batch at most `rows` positions, one out of each of as many runs of equal length.
    Correlations are those of all positions looked at. Mutual information is taken from a reservoir
    of `rows` of these, and averaged over a random choice of `pairs` pairs. So the memory kept for a
    weight layer is at most `2 * (8 * channels**2 + 4 * rows * channels)` bytes and a little, 2.1
    MiB with the defaults, and as much again for the batch at work, whatever the size of the images
    and of the data; a ResNet-50 has 54 weight layers. What the model itself needs for a batch comes
    on top.

    Args:
        model: Any `keras.Model`, built.
        data: What `fit` takes: arrays (the inputs alone), or a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a torch `DataLoader` or a generator of `(inputs,)`, `(inputs,
            targets)` or `(inputs, targets, sample_weights)`; only the inputs are used.
        steps: Positive integer, how many batches to read. Defaults to `None`: all.
        batch_size: Positive integer, for arrays. Defaults to `None`: 32. In training mode the
            statistics of a batch depend on it.
        channels: Integer above 1, how many channels to look at, at most. Defaults to `64`.
        rows: Integer above 1, how many positions to look at in a batch, and to keep for the mutual
            information, at most. Defaults to `4096`.
        pairs: Positive integer, how many pairs of channels to take the mutual information of, at
            most. Defaults to `128`.
        seed: Integer in `[0, 2**31)`, chooses channels, positions and pairs. Defaults to `0`.
        verbose: `"auto"` or 1 for a progress bar, 0 for none. Defaults to `"auto"`.

    Returns:
        A `keras_ic.independence.Report`: `report.rows` and `report.shifts` hold the numbers,
        `report.advice` says what to do about the shifts, `str(report)` is all of it as tables,
        `report.plot(path)` draws a figure. The estimators and their
        errors are described in `keras_ic.independence.estimators`.

    Raises:
        ValueError: For a model without weight layers, an argument that the above excludes, data of
            another shape than the model's inputs, no data, and fewer batches than `steps`.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras_ic.IC(0.3),
            keras.layers.Dense(2, name="last"),
        ]
    )
    report = keras_ic.measure(
        model, np.random.default_rng(0).normal(size=(1000, 8)).astype("float32"), verbose=0
    )
    print(report)
    training, inference = (row for row in report.rows if row.layer == "last")
    assert training.correlation < inference.correlation
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
        - [Li et al., 2019](https://arxiv.org/abs/1801.05134), the disharmony between dropout and
          batch normalization by variance shift
        - [Roy and Vetterli, 2007](https://infoscience.epfl.ch/record/110188), the effective rank
    """
    meter = Meter(model, channels=channels, rows=rows, pairs=pairs, seed=seed)
    return meter.measure(data, steps, batch_size=batch_size, verbose=verbose)


def checked_options(
    channels: Any = 64, rows: Any = 4096, pairs: Any = 128, seed: Any = 0
) -> dict[str, int]:
    """The options of `measure` that choose what is looked at, with their defaults."""
    return {
        "channels": several_int("channels", channels),
        "rows": several_int("rows", rows),
        "pairs": positive_int("pairs", pairs),
        "seed": checked_seed("seed", seed),
    }


class Meter:
    """`measure` of one model, again and again without another compilation. The options are those of
    `checked_options`.
    """

    def __init__(self, model: keras.Model, **options: Any):
        self.model = checked_model(model)
        self.options = checked_options(**options)
        weight_layers, normalizations = watched_layers(model)
        if not weight_layers:
            raise ValueError(
                "The model must have weight layers (dense, convolutional), whose inputs are"
                f" measured. Received: model {model.name!r}"
            )
        if not all(layer.built for layer in weight_layers):
            raise ValueError(
                "The weight layers of the model must be built, as a first call builds them."
                f" Received: model {model.name!r}"
            )
        channels, rows, seed = (self.options[name] for name in ("channels", "rows", "seed"))
        self.sample = Sample(weight_layers, normalizations, paddings(model), channels, rows, seed)
        self.recorders = {
            mode: Recorder(
                model, self.sample.looks(mode == "training"), mode == "training", drawn=True
            )
            for mode in MODES
        }

    def measure(
        self,
        data: Any,
        steps: int | None = None,
        *,
        batch_size: int | None = None,
        verbose: int | str = 0,
    ) -> Report:
        """One pass over the data."""
        generator = np.random.default_rng(self.sample.seed)
        streams: dict[tuple[str, int], RunningCovariance] = {}
        moments: dict[int, PooledMoments] = collections.defaultdict(PooledMoments)
        with random_states_kept():
            for inputs in inputs_of(self.model, data, steps, batch_size, verbose):
                draws = generator.random(self.sample.rows + 1, dtype="float32")
                for mode, recorder in self.recorders.items():
                    records = recorder.predict_on_batch({"inputs": inputs, "draws": draws})
                    self._add(records, mode, streams, moments)
        return self._report(streams, moments)

    def _add(self, records, mode: str, streams: dict, moments: dict) -> None:
        """Takes in what a recorder gave of a batch."""
        for key, of_calls in records.items():
            what, _, index = key.partition("/")
            if what == "moments":
                for each in of_calls:
                    moments[int(index)].add(each)
                continue
            which = mode, int(index)
            if which not in streams:
                streams[which] = RunningCovariance(
                    self.sample.rows, [self.sample.seed, int(index)], align=mode == "training"
                )
            values = np.concatenate(of_calls)
            streams[which].add(values[values[:, -1] > 0, :-1])

    def _report(self, streams, moments) -> Report:
        path_of = paths(self.model)
        sample = self.sample
        # The first batch found out which layers run, in which order.
        rows = [
            self._row(path_of, index, mode, streams[mode, index])
            for index in sample.widths
            for mode in MODES
            if (mode, index) in streams and streams[mode, index].count
        ]
        found = [
            (
                _shift(path_of[id(layer)], layer, moments[index].variance),
                layer,
                moments[index].count,
            )
            for index, layer in enumerate(sample.normalizations)
            if index in moments and layer.built
        ]
        measured = {row.layer for row in rows}
        silent = [
            path_of[id(layer)]
            for layer in sample.weight_layers
            if path_of[id(layer)] not in measured
        ]
        skipped = [(path, "not called, or no position that counts") for path in silent]
        covered = {id(inner) for layer in sample.weight_layers for inner in sublayers(layer)}
        for layer in sublayers(self.model):
            if isinstance(layer, WEIGHT_LAYERS) and id(layer) not in covered:
                skipped.append((path_of[id(layer)], "runs step by step inside another layer"))
        return Report(
            self.model.name,
            tuple(rows),
            tuple(shift for shift, _, _ in found),
            tuple(skipped),
            advise(self.model, [(*entry, float(np.max(count))) for *entry, count in found]),
        )

    def _row(self, path_of, index, mode, stream) -> Input:
        layer = self.sample.weight_layers[index]
        width = self.sample.widths[index]
        return Input(
            layer=path_of[id(layer)],
            type=type(unwrap(layer)).__name__,
            mode=mode,
            channels=width,
            sampled=min(width, self.sample.channels),
            rows=stream.count,
            **stream.measured(self.options["pairs"]),
        )


def _shift(path, layer, variance) -> Shift:
    layer = unwrap(layer)
    with np.errstate(invalid="ignore", over="ignore"):
        ratios = (variance + layer.epsilon) / (as_array(layer.moving_variance) + layer.epsilon)
    values = [estimators.NAN] * 4
    if np.isfinite(ratios).all():
        lowest, highest = ratios.min(), ratios.max()
        # Logarithm and exponential may take the mean of equal ratios out of their range, by a
        # rounding.
        mean = np.clip(np.exp(np.log(ratios).mean()), lowest, highest)
        values = [mean, lowest, highest, np.maximum(ratios, 1 / ratios).mean()]
    return Shift(path, type(layer).__name__, len(ratios), *map(float, values))
