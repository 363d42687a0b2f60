"""Backups within an epoch, from which a run goes on as if it had never stopped."""

import json
import zipfile
from typing import Any

import keras
import numpy as np

from keras_ic import saving
from keras_ic.distribution.agreement import ask_chief, broadcast, broadcast_variables
from keras_ic.distribution.keras_fit import variables_of
from keras_ic.utils.keras_internals import set_initial_epoch
from keras_ic.utils.validation import checked_int

PROGRESS = "keras_ic_progress.json"


class Backup(keras.callbacks.Callback):
    """Saves a prepared model with its optimizer, its random states, its metrics and its place in
    the epoch, and goes on from there.

    The next `fit` with the same arguments, after a stop of any kind, goes on at the step of the
    last backup. It then comes to the numbers that it would have had if its data are the same from
    there on: a dataset has to begin at the batch after the last; `place()` says which.
    (`keras.callbacks.BackupAndRestore` goes back to the beginning of the epoch with the weights of
    its middle, and forgets the random states.)

    All workers use it; the chief alone reads and writes the file, which is replaced in one step,
    and tells the others.

    Args:
        path: Path ending in `.keras`, the same on every worker; the chief's counts.
        every: Integer above 0, the steps from one backup to the next. Defaults to `None`: at the
            end of each epoch alone. To go on within an epoch, `fit` needs the `steps_per_epoch` of
            before, and data that begin at the batch after the last.

    Raises:
        ValueError: For an argument that the above excludes; from `fit`, if the model is not
            prepared, the file is no whole backup, or a step within an epoch of another length.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    from keras_ic import distribution

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    backup = distribution.Backup(pathlib.Path(tempfile.mkdtemp(), "backup.keras"), every=2)
    if keras.backend.backend() == "tensorflow":
        model = distribution.prepare(model)
        model.compile("sgd", "mse")
        model.fit(
            keras.ops.ones((8, 3)),
            keras.ops.zeros((8, 2)),
            batch_size=2,
            callbacks=[backup],
            verbose=0,
        )
        assert backup.place() == (1, 0)
    ```
    """

    def __init__(self, path: Any, every: int | None = None):
        super().__init__()
        self.path = saving.checked_name(path)
        self.every = (
            None
            if every is None
            else checked_int("every", every, "None or an integer above 0", lambda value: value > 0)
        )
        self._metrics: list[np.ndarray] | None = None

    def place(self, strategy: Any = None) -> tuple[int, int]:
        """The epoch and the step in it, both from 0, at which training goes on; `(0, 0)` without a
        backup.

        Args:
            strategy: The strategy of several workers, all of which call this at the same time: the
                chief reads the file, and an error there is an error on all. Defaults to `None`:
                this process reads it.
        """

        def read():
            progress = self._progress()
            return [progress["epoch"], progress["step"]] if progress else [0, 0]

        epoch, step = read() if strategy is None else ask_chief(strategy, read, 2)
        return epoch, step

    def on_train_begin(self, logs=None):
        """Restores, if there is something to restore."""
        model = self.model
        if not hasattr(model, "distribution"):
            raise ValueError(
                "`Backup` needs a model of `keras_ic.distribution.prepare`. Received: model"
                f" {model.name!r}"
            )
        state = model.distribution

        def restored():
            progress = self._progress()
            if progress is None:
                return [0, 0, 0]
            if progress["step"] and progress["steps"] != self.params["steps"]:
                raise ValueError(
                    f"it was made in an epoch of {progress['steps']} steps, not"
                    f" {self.params['steps']}; give `steps_per_epoch`"
                )
            values = [
                np.reshape(value, variable.shape)
                for value, variable in zip(
                    progress["metrics"], self._metric_variables(), strict=True
                )
            ]
            saving.restore(model, self.path)
            self._metrics = values
            return [1, progress["epoch"], progress["step"]]

        try:
            found, epoch, step = ask_chief(state.strategy, restored, 3)
        except ValueError as error:
            raise ValueError(
                f"The chief could not go on from its backup ({error}); restore the file, or choose"
                f" another. Received: {str(self.path)!r}"
            ) from None
        if not found:
            return
        broadcast_variables(state.strategy, variables_of(model))
        metrics = self._metrics or [np.zeros(each.shape) for each in self._metric_variables()]
        self._metrics = broadcast(state.strategy, metrics) if step else None
        set_initial_epoch(model, epoch)
        state.skip = step

    def on_epoch_begin(self, epoch, logs=None):
        """Gives the metrics of a resumed epoch what they had."""
        if self._metrics is not None:
            for variable, value in zip(self._metric_variables(), self._metrics, strict=True):
                variable.assign(value.astype(variable.dtype))
            self._metrics = None
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Notes whether the step is one that was done before."""
        self._skipped = self.model.distribution.skip > 0

    def on_train_batch_end(self, batch, logs=None):
        """Saves, and stops if the workers have agreed to."""
        if self._skipped or batch + 1 == self.params["steps"]:
            return  # After the last step, `on_epoch_end` saves, once the epoch has its validation.
        if self.model.distribution.stop_agreed or (self.every and (batch + 1) % self.every == 0):
            self._save(self._epoch, batch + 1)
        self._stop_if_agreed()

    def on_epoch_end(self, epoch, logs=None):
        """Saves, and stops if the workers have agreed to."""
        self._save(epoch + 1, 0)
        self._stop_if_agreed()

    def _stop_if_agreed(self):
        if self.model.distribution.stop_agreed:
            self.model.distribution.stop_wanted = False  # done
            raise KeyboardInterrupt

    def _save(self, epoch, step):
        # Read by all, since the metrics of a step are spread over the replicas.
        metrics = [
            keras.ops.convert_to_numpy(variable).tolist() for variable in self._metric_variables()
        ]
        if not self.model.distribution.is_chief:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with saving.replacing(self.path) as new:
            saving.save_model(self.model, new)
            with zipfile.ZipFile(new, "a") as archive:
                archive.writestr(
                    PROGRESS,
                    json.dumps(
                        {
                            "epoch": epoch,
                            "step": step,
                            "steps": self.params["steps"],
                            "metrics": metrics,
                        }
                    ),
                )

    def _metric_variables(self):
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _progress(self):
        if not self.path.exists():
            return None
        progress = saving.read_entry(self.path, PROGRESS)
        try:
            return {
                **{name: int(progress[name]) for name in ("epoch", "step")},
                "steps": progress["steps"],
                "metrics": list(progress["metrics"]),
            }
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError(
                "This is no whole backup of a run; restore it from a copy, or delete it. Received:"
                f" {str(self.path)!r}"
            ) from None
