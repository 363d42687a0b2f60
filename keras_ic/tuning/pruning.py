"""The median stopping rule."""

from collections.abc import Sequence

import numpy as np

WARM_UP = 2  # epochs in which no trial is stopped
LEAST = 4  # trials that the median is taken of


def is_poor(curve: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether a trial is to be stopped: its best epoch so far is below the median of the others'
    means over as many epochs.

    Args:
        curve: Sequence of the accuracies of the trial's epochs so far.
        others: Sequence of the same of the trials that have ended; those that ended earlier do not
            count.

    Example:

    ```python
    from keras_ic.tuning.pruning import is_poor

    others = [[0.5, 0.6, 0.7]] * 4
    assert is_poor([0.1, 0.2, 0.3], others) and not is_poor([0.1, 0.2, 0.6], others)
    ```

    Reference: [Golovin et al., 2017](https://research.google/pubs/pub46180/), Google Vizier,
    section 3.1.
    """
    epochs = len(curve)
    means = [np.mean(other[:epochs]) for other in others if len(other) >= epochs]
    return epochs >= WARM_UP and len(means) >= LEAST and max(curve) < np.median(means)
