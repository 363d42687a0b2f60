"""Moving statistics while a model trains: a callback that re-estimates them before each validation,
and a notice of trainings that are too short for their momentum.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_ic.calibration import (
    NORMALIZATIONS,
    MomentsPass,
    normalizations,
    set_statistics,
    with_batch_statistics,
)
from keras_ic.utils.data_adapters import (
    checked_repeatable,
    checked_sizes,
    inputs_of,
    random_states_kept,
    size_of,
)
from keras_ic.utils.keras_internals import evaluate_again, sublayers
from keras_ic.utils.validation import checked_bool, checked_int

# A step without gradients takes about a third of one with them, and the moments a little more.
SHARE = 5
# More examples than this make the statistics no better (Wu and Johnson, 2021).
MOST_EXAMPLES = 10_000
# After so many times 1 / (1 - momentum) steps, less than 1 % of the initial value is left.
TIME_CONSTANTS = 5


class Recalibration(keras.callbacks.Callback):
    """Re-estimates all moving statistics before each validation of `fit`, as
    `keras_ic.recalibrate` does.

    Moving statistics lag behind the weights, and they contain the variance that dropout adds in
    training (Li et al., 2019). What a validation then says is not what the network can do. With
    this callback, `val_loss` and the other metrics, `EarlyStopping`, `ModelCheckpoint` and the
    model that `fit` leaves all have statistics of the weights as they are. It serves any model with
    IC or BatchNormalization layers.

    In an epoch without validation it runs at the end of the epoch; put it before callbacks that
    save the model, then. After an epoch that was not its turn, it runs once more when the training
    ends. The training itself does not depend on it: layers normalize with the statistics of the
    batch there, and only go on to average from the new moving statistics. Frozen layers, which do
    use moving statistics in training, are left alone.

    What it does in an epoch depends on the model and `data` alone: a training that is stopped,
    restored and continued comes out the same if `data` gives the same batches each time. For that,
    give a `tf.data.Dataset` a seed and `reshuffle_each_iteration=False`.

    Args:
        data: The training data, in a form that `fit` takes: arrays (the inputs alone), a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`; no generator,
            since it is read each time. A part of it is used: examples of arrays are a random choice
            that is always the same, batches of a `PyDataset` are evenly spaced, and of other data
            they are the first ones, so that these should be shuffled.
        steps: Positive integer, how many batches to read. Defaults to `None`: a fifth of the
            training steps of an epoch (for arrays: a fifth of the examples), and not more than make
            10,000 examples. As there is no backward pass, this takes less than a tenth of an
            epoch's time, compilation in the first epoch aside.
        every: Positive integer, after how many epochs to do so. Defaults to `1`.
        batch_size: Positive integer, for arrays. Defaults to `None`: 128.
        compare: Boolean, whether to validate with the moving statistics as trained too, which takes
            a second validation. Defaults to `False`.

    Attributes:
        seconds: What it took, by epoch, counted from 1.

    The logs and `History` get `recalibration_seconds`, and with `compare` the metrics as trained,
    `val_loss_as_trained` beside `val_loss`, in the epochs whose turn it was. Unless `fit` is
    silent, one line at its end says what the callback took in all.

    Raises:
        ValueError: For an argument that the above excludes. At the beginning of `fit`: for a model
            without trainable IC and BatchNormalization layers, or with a subclass of
            BatchNormalization that computes something else. In `fit`: for data of another shape
            than the model's inputs, fewer batches than `steps`, and statistics that are not finite;
            the moving statistics stay as they were.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    x, y = np.random.default_rng(0).normal(size=(256, 8)), np.zeros(256)
    model = keras.Sequential([keras.Input((8,)), keras_ic.IC(0.1), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    callbacks = [keras_ic.Recalibration(x[:192]), keras.callbacks.EarlyStopping(patience=3)]
    history = model.fit(
        x[:192], y[:192], validation_data=(x[192:], y[192:]), callbacks=callbacks, verbose=0
    )
    assert "recalibration_seconds" in history.history
    ```

    References:
        - [Li et al., 2019](https://arxiv.org/abs/1801.05134), the disharmony between dropout and
          batch normalization by variance shift
        - [Wu and Johnson, 2021](https://arxiv.org/abs/2105.07576), rethinking "batch" in BatchNorm:
          precise statistics from a few thousand examples
    """

    def __init__(
        self,
        data: Any,
        steps: int | None = None,
        every: int = 1,
        *,
        batch_size: int | None = None,
        compare: bool = False,
    ) -> None:
        super().__init__()
        self.data = checked_repeatable(data)
        self.steps, self.batch_size = checked_sizes(steps, batch_size)
        self.every = checked_int("every", every, "a positive integer", lambda value: value > 0)
        self.compare = checked_bool("compare", compare)
        self.seconds: dict[int, float] = {}
        self._pass: MomentsPass | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Looks the model over."""
        layers = [layer for layer in normalizations(self.model) if layer.trainable]
        if not layers:
            raise ValueError(
                "All IC and BatchNormalization layers are frozen, so that there are no statistics"
                f" to re-estimate. Received: model {self.model.name!r}"
            )
        self._pass = MomentsPass(self.model, layers, with_batch_statistics)
        self.seconds = {}
        self._begin = time.perf_counter()
        self._epoch = self._train_steps = self._batches = 0
        self._is_done = True
        self._as_trained: list = []
        self._compared: dict[str, float] = {}
        with random_states_kept():
            next(self._inputs())  # Data that do not fit are refused before the first epoch.

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Notes the epoch."""
        self._epoch, self._is_done, self._compared = epoch, False, {}

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Counts the steps. (`on_train_batch_end` would make all callbacks wait for each step.)"""
        self._train_steps = batch + 1

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Re-estimates, if this is the validation of an epoch whose turn it is."""
        if self._pass is not None and self._is_turn():
            self._recalibrate()

    def on_test_end(self, logs: dict | None = None) -> None:
        """Validates once more with the statistics as trained, if asked to."""
        if self._pass is None or not (self.compare and self._as_trained):
            return
        recalibrated = self._statistics()
        self._restore(self._as_trained)
        try:
            found = evaluate_again(self.model)
        finally:
            self._restore(recalibrated)
        self._as_trained = []
        self._compared = {f"val_{name}_as_trained": value for name, value in found.items()}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs what it took; re-estimates if no validation has asked for it."""
        if self._is_turn():
            self._recalibrate()
            self._as_trained = []
        if epoch + 1 in self.seconds and logs is not None:
            logs.update(self._compared, recalibration_seconds=self.seconds[epoch + 1])

    def on_train_end(self, logs: dict | None = None) -> None:
        """Re-estimates if the last epoch was not the turn, and prints what all of it took."""
        if not self._is_done:
            self._recalibrate()
        total, seconds = time.perf_counter() - self._begin, sum(self.seconds.values())
        self._pass = None
        if self.params.get("verbose"):
            print(
                f"Recalibration: {len(self.seconds)} times {self._batches} batches,"
                f" {seconds:.1f} s, {seconds / total:.1%} of the training."
            )

    def _is_turn(self) -> bool:
        return not self._is_done and (self._epoch + 1) % self.every == 0

    def _recalibrate(self) -> None:
        assert self._pass is not None
        begin = time.perf_counter()
        self._as_trained = self._statistics() if self.compare else []
        with random_states_kept():
            set_statistics(self._pass.moments(self._inputs()))
        self._is_done = True
        self.seconds[self._epoch + 1] = round(time.perf_counter() - begin, 3)

    def _statistics(self) -> list:
        assert self._pass is not None
        return [
            (variable, np.array(keras.ops.convert_to_numpy(variable)))
            for layer in self._pass.layers
            for variable in (layer.moving_mean, layer.moving_variance)
        ]

    @staticmethod
    def _restore(statistics: list) -> None:
        for variable, value in statistics:
            variable.assign(value)

    def _inputs(self) -> Iterator[Any]:
        data, steps = self.data, self.steps
        automatic = max(1, math.ceil(self._train_steps / SHARE))
        leaves = keras.tree.flatten(data)
        if leaves and all(getattr(leaf, "shape", ()) for leaf in leaves):
            size = self.batch_size or 128
            examples = min(len(leaves[0]) // SHARE, MOST_EXAMPLES)
            steps = steps or max(1, examples // size)
            data = _chosen_examples(data, size, steps)
        elif isinstance(data, keras.utils.PyDataset):
            data = _spaced_batches(data, steps or automatic)
        self._batches = seen = 0
        for inputs in inputs_of(
            self.model, data, steps or automatic, None, 0, all_steps=self.steps is not None
        ):
            yield inputs
            self._batches += 1
            seen += size_of(inputs)
            if self.steps is None and seen >= MOST_EXAMPLES:
                return


def _chosen_examples(arrays: Any, size: int, steps: int) -> Iterator[tuple]:
    """Batches of a random choice of examples, which is always the same."""
    order = np.random.default_rng(0).permutation(len(keras.tree.flatten(arrays)[0]))
    for start in range(0, min(size * steps, len(order)), size):
        rows = order[start : start + size]
        yield (keras.tree.map_structure(lambda array, rows=rows: np.asarray(array)[rows], arrays),)


def _spaced_batches(data: keras.utils.PyDataset, steps: int) -> Iterator[Any]:
    """Evenly spaced batches, without the calls that tell the data of the end of an epoch."""
    count = data.num_batches
    indices = range(steps) if count is None else np.arange(min(steps, count)) * count // steps
    for index in indices:
        yield data[int(index)]


def too_short_for_momentum(model: keras.Model, steps: int) -> str | None:
    """One line that warns of moving statistics whose momentum is too large for the number of steps;
    None where there are none.

    The moving statistics of a layer start from a mean of 0 and a variance of 1, of which `momentum
    ** steps` is left after `steps` training steps. Where `steps * (1 - momentum)` is below 5, that
    is 0.7 % and more, and a validation can be at chance while the network has learned.

    Args:
        model: A built `keras.Model`.
        steps: Integer of 0 or more, the training steps in all.

    Example:

    ```python
    import keras
    import keras_ic
    from keras_ic.recalibration import too_short_for_momentum

    model = keras.Sequential([keras.Input((8,)), keras_ic.IC(), keras.layers.Dense(1)])
    assert too_short_for_momentum(model, steps=1000) is None
    print(too_short_for_momentum(model, steps=300))
    ```
    """
    steps = checked_int("steps", steps, "an integer of 0 or more", lambda value: value >= 0)
    slow = [
        layer
        for layer in sublayers(model)
        if isinstance(layer, NORMALIZATIONS)
        and layer.trainable
        and steps * (1 - layer.momentum) < TIME_CONSTANTS
    ]
    if not slow:
        return None
    slowest = max(slow, key=lambda layer: layer.momentum)
    wanted = (
        f"{math.ceil(TIME_CONSTANTS / (1 - slowest.momentum)):,}"
        if slowest.momentum < 1
        else "no number of"
    )
    layers = "1 layer" if len(slow) == 1 else f"{len(slow)} layers"
    return (
        f"{steps:,} steps are too few for the moving statistics of {layers} ({slowest.name} has"
        f" momentum {slowest.momentum:g}, which takes {wanted} steps): give `fit` the callback"
        " keras_ic.Recalibration(x_train), or call keras_ic.recalibrate(model, x_train) afterwards."
    )
