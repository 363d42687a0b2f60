"""What is kept of the rows of one layer as they stream by: their covariance, and a reservoir of the
rows themselves.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_ic.independence import estimators

# Rows for each pair of bins, on average; with fewer, the correction of the bias no longer corrects.
SPARE_ROWS = 8


class RunningCovariance:
    """The covariance of all rows, and a uniform sample of at most `rows` of them.

    Whatever streams by, it keeps `8 * channels**2 + 4 * rows * channels` bytes and a little.

    Args:
        rows: Integer above 0, the size of the reservoir.
        seed: Integers of 0 or more, which seed NumPy's generator.
        align: Boolean, whether the rows come from batches each of which was normalized with its own
            statistics. Defaults to `False`.

    Example:

    ```python
    import numpy as np
    from keras_ic.independence.running_covariance import RunningCovariance

    values = np.random.default_rng(0).normal(size=(1000, 3))
    running = RunningCovariance(rows=100, seed=[0])
    for part in np.split(values, 10):
        running.add(part)
    assert running.count == 1000 and running.reservoir.shape == (100, 3)
    assert np.allclose(running.covariance, np.cov(values.T, bias=True))
    ```

    References:
        - [Chan, Golub and LeVeque,
          1979](http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf), pooling of
          covariances
        - [Vitter, 1985](https://doi.org/10.1145/3147.3165), random sampling with a reservoir
    """

    def __init__(self, rows: int, seed: Sequence[int], align: bool = False):
        self.rows = rows
        self.seed = seed
        self.align = align
        self._places: dict[int, Any] = {}
        self.count = 0
        self.mean: Any = 0.0
        self.covariance: Any = 0.0
        self.reservoir: Any = None
        self._random = np.random.default_rng(seed)

    def add(self, values: Any) -> None:
        """Takes in rows of values `(rows, channels)`."""
        values = np.asarray(values, "float32")
        if not len(values):
            return
        self._keep(values)
        share = len(values) / (self.count + len(values))
        # What is not finite stays so, and `measured` reports it.
        with np.errstate(invalid="ignore", over="ignore"):
            wide = values.astype("float64")
            mean = wide.mean(0)
            centred = wide - mean
            difference = mean - self.mean
            between = share * (1 - share) * np.outer(difference, difference)
            self.covariance = (
                (1 - share) * self.covariance
                + share * (centred.T @ centred) / len(values)
                + between
            )
            self.mean = self.mean + share * difference
        self.count += len(values)

    def _keep(self, values):
        if self.reservoir is None:
            self.reservoir = np.empty((0, values.shape[1]), "float32")
        free = self.rows - len(self.reservoir)
        # Row number n, counted from 1, comes in with probability rows / n, in the place of any
        # other.
        numbers = np.arange(self.count + 1, self.count + len(values) + 1)[free:]
        places = (self._random.random(len(numbers)) * numbers).astype("int64")
        comes = places < self.rows
        if free == 0 and not comes.any():
            return
        if self.align:
            values = self._aligned(values)
        self.reservoir = np.concatenate([self.reservoir, values[:free]])
        self.reservoir[places[comes]] = values[free:][comes]

    def _aligned(self, values):
        """The rows with the value that a channel has most often, but for 0, moved to where it was
        in the first batch.

        The statistics of a batch put the 0 of a rectifier elsewhere in each. Bins of rows of
        several batches would tell the batch from that, in every channel, and take it for
        information that the channels share.
        """
        aligned = values.copy()
        for channel, column in enumerate(values.T):
            unique, counts = np.unique(column[column != 0], return_counts=True)
            if not len(unique) or counts.max() < max(2, estimators.SMALLEST_ATOM * len(column)):
                continue
            value = unique[counts.argmax()]
            place = self._places.setdefault(channel, value)
            # A place that is still taken did not move.
            if value != place and np.count_nonzero(column == place) < 2:
                aligned[column == value, channel] = place
        return aligned

    def measured(self, pairs: int) -> dict[str, float | int]:
        """The estimates: those of `estimators.second_order` and the mean mutual information over
        `pairs` pairs of channels, chosen by the seed.
        """
        found: dict[str, float | int] = dict(estimators.second_order(self.covariance))
        bins = int(np.clip(np.sqrt(len(self.reservoir) / SPARE_ROWS), 2, estimators.BINS))
        moving = np.flatnonzero(np.diag(self.covariance) > 0)
        names = ("mutual_information", "normalized_mutual_information")
        if len(moving) < 2 or not np.isfinite(self.covariance).all():
            return {**found, **dict.fromkeys(names, estimators.NAN), "pairs": 0, "bins": bins}
        first, second = np.triu_indices(len(moving), 1)
        chosen = np.random.default_rng(self.seed).permutation(len(first))[:pairs]
        first, second = moving[first[chosen]], moving[second[chosen]]
        binned = {
            channel: estimators.binned(self.reservoir[:, channel], bins)
            for channel in {*first.tolist(), *second.tolist()}
        }
        information = np.array(
            [
                estimators.information_of_bins(binned[a], binned[b])
                for a, b in zip(first.tolist(), second.tolist(), strict=True)
            ]
        )
        averages = {name: _mean(values) for name, values in zip(names, information.T, strict=True)}
        return {**found, **averages, "pairs": len(chosen), "bins": bins}


def _mean(values) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else estimators.NAN
