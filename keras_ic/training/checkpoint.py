"""Checkpoints of a training, from which it goes on as if it had never stopped."""

import json
import math
import zipfile
from typing import Any

import keras
import numpy as np

from keras_ic import saving
from keras_ic.distribution import jax_devices
from keras_ic.distribution.agreement import ask_chief, broadcast, broadcast_variables
from keras_ic.distribution.keras_fit import variables_of
from keras_ic.utils.validation import positive_int

PROGRESS = "keras_ic_progress.json"


class CheckpointCallback(keras.callbacks.Callback):
    """Saves a model with its optimizer, its random states, its metrics and its place in the epoch.

    After a stop of any kind, `restore` gives the model what it had at the last checkpoint, and the
    epoch and the step to go on at. A `fit` from there comes to the numbers that it would have had,
    if its data are the same: they begin at that step, and the first `fit` takes the rest of that
    epoch alone. `keras_ic.training.run` does all this.

    (`keras.callbacks.BackupAndRestore` goes back to the beginning of the epoch with the weights of
    its middle, and forgets the random states.)

    Under a strategy of several workers all of them use it; the chief alone reads and writes the
    file, which is replaced in one step, and tells the others. On TensorFlow, the model is then one
    of `keras_ic.distribution.prepare`.

    Args:
        path: Path ending in `.keras`, the same on every worker; the chief's counts.
        every: Integer above 0, the steps from one checkpoint to the next. There is one after each
            epoch too. Defaults to `None`: those alone.
        stop: What has a boolean `wanted`, whether to stop after this step with a checkpoint, by a
            `KeyboardInterrupt`. Defaults to `None`: never.

    Attributes:
        offset: Integer, the steps of the epoch that were done before `fit` began.

    Raises:
        ValueError: For an argument that the above excludes; from `restore`, if the file is no whole
            checkpoint of this model.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    from keras_ic.training import CheckpointCallback


    def compiled():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        return model


    checkpoint = CheckpointCallback(pathlib.Path(tempfile.mkdtemp(), "checkpoint.keras"))
    x, y = keras.ops.ones((8, 3)), keras.ops.zeros((8, 2))
    compiled().fit(x, y, epochs=2, callbacks=[checkpoint], verbose=0)
    assert checkpoint.restore(compiled()) == (2, 0)  # the third epoch, from its first step
    ```
    """

    def __init__(self, path: Any, every: int | None = None, stop: Any = None):
        super().__init__()
        self.path = saving.checked_name(path)
        self.every = None if every is None else positive_int("every", every)
        self.stop = stop
        self.offset = 0
        self._metrics: np.ndarray | None = None

    def place(self) -> tuple[int, int]:
        """The epoch and the step in it, both from 0, at which training goes on; `(0, 0)` without a
        checkpoint. The chief's file is read.
        """
        progress = self._progress(self.path)
        return (progress["epoch"], progress["step"]) if progress else (0, 0)

    def restore(self, model: keras.Model) -> tuple[int, int]:
        """Gives a compiled model what it had at the last checkpoint, if there is one.

        Returns:
            The epoch and the step in it, both from 0, at which training goes on.
        """
        strategy = getattr(getattr(model, "distribution", None), "strategy", None)
        self.offset, self._metrics = 0, None
        row = np.zeros(0)

        def restored(path=self.path):
            nonlocal row
            progress = self._progress(path)
            if progress is None:
                return [0, 0, 0, 0]
            saving.restore(model, path)
            # All values in one row, since the metrics of a model may not be built yet.
            row = np.concatenate([row, *map(np.ravel, progress["metrics"])])
            return [1, progress["epoch"], progress["step"], len(row)]

        try:
            if keras.backend.backend() == "jax":
                with jax_devices.file_of_chief(self.path) as path:
                    found, epoch, self.offset, values = restored(path)
            else:
                found, epoch, self.offset, values = (
                    restored() if strategy is None else ask_chief(strategy, restored, 4)
                )
        except ValueError as error:
            raise ValueError(
                f"The checkpoint cannot be read ({error}); restore the file, or choose another"
                f" folder. Received: {str(self.path)!r}"
            ) from None
        if found and strategy is not None:
            broadcast_variables(strategy, variables_of(model))
            if values:
                (row,) = broadcast(strategy, [row if len(row) else np.zeros(values)])
        self._metrics = row if self.offset else None
        return epoch, self.offset

    def on_epoch_begin(self, epoch, logs=None):
        """Gives the metrics of a resumed epoch what they had."""
        self._epoch = epoch
        if self._metrics is not None:
            variables = _metric_variables(self.model)
            sizes = [math.prod(variable.shape) for variable in variables]
            if sum(sizes) != len(self._metrics):
                raise ValueError(
                    "To go on within an epoch, the metrics of the model must be built; call its"
                    f" `test_on_batch` once. Received: {sum(sizes)} values in variables of metrics"
                    f" for {len(self._metrics)}"
                )
            parts = np.split(self._metrics, np.cumsum(sizes)[:-1])
            for variable, value in zip(variables, parts, strict=True):
                variable.assign(np.reshape(value, variable.shape).astype(variable.dtype))
            self._metrics = None

    def on_train_batch_end(self, batch, logs=None):
        """Saves, and stops if that is wanted."""
        if batch + 1 == self.params["steps"]:
            return  # After the last step, `on_epoch_end` saves, once the epoch has its validation.
        step, is_stopped = self.offset + batch + 1, self._is_stopped()
        if is_stopped or (self.every and step % self.every == 0):
            self._save(self._epoch, step)
        if is_stopped:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        """Saves, and stops if that is wanted."""
        self.offset = 0
        self._save(epoch + 1, 0)
        if self._is_stopped():
            raise KeyboardInterrupt

    def _is_stopped(self):
        """Whether to stop. Several workers agree on it, a step after it was wanted."""
        # Not through `self.model`, which makes JAX move its state at every step.
        distribution = getattr(self._model, "distribution", None)
        wanted = self.stop is not None and self.stop.wanted
        if keras.backend.backend() == "jax":
            return jax_devices.any_process(wanted)
        if distribution is None or distribution.workers == 1:
            return wanted
        distribution.stop_wanted = distribution.stop_wanted or wanted
        return distribution.stop_agreed

    def _save(self, epoch, step):
        # Read by all, since the metrics of a step are spread over the replicas.
        metrics = [
            keras.ops.convert_to_numpy(variable).tolist()
            for variable in _metric_variables(self.model)
        ]
        distribution = getattr(self.model, "distribution", None)
        is_jax = keras.backend.backend() == "jax"
        if not (jax_devices.is_chief() if is_jax else getattr(distribution, "is_chief", True)):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        progress = {"epoch": epoch, "step": step, "metrics": metrics}
        with saving.replacing(self.path) as new, jax_devices.of_chief_alone():
            saving.save_model(self.model, new)
            with zipfile.ZipFile(new, "a") as archive:
                archive.writestr(PROGRESS, json.dumps(progress))

    def _progress(self, path):
        if not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                progress = json.loads(archive.read(PROGRESS))
            return {
                "epoch": int(progress["epoch"]),
                "step": int(progress["step"]),
                "metrics": list(progress["metrics"]),
            }
        # Damaged bytes make zipfile raise nearly anything.
        except Exception:
            raise ValueError(
                "This is not a complete checkpoint of a run; restore it from a copy, or delete it."
                f" Received: {str(self.path)!r}"
            ) from None


def _metric_variables(model):
    return [variable for metric in model.metrics for variable in metric.variables]
