"""Backups within an epoch, from which a run goes on as if it had never stopped."""

import json
import zipfile
from typing import Any

import keras
import numpy as np

from keras_ic import saving
from keras_ic.distribution.agreement import broadcast, broadcast_variables
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
        self._metrics: list[float] | None = None

    def place(self) -> tuple[int, int]:
        """The epoch and the step in it, both from 0, at which training goes on; `(0, 0)` without a
        backup. The chief's file is read.
        """
        progress = self._progress()
        return (progress["epoch"], progress["step"]) if progress else (0, 0)

    def on_train_begin(self, logs=None):
        """Restores, if there is something to restore."""
        model = self.model
        if not hasattr(model, "distribution"):
            raise ValueError(
                "`Backup` needs a model of `keras_ic.distribution.prepare`. Received: model"
                f" {model.name!r}"
            )
        state = model.distribution
        problem, progress = "", None
        if state.is_chief:
            try:
                progress = self._progress()
                if progress is not None:
                    if progress["step"] and progress["steps"] != self.params["steps"]:
                        raise ValueError(
                            f"it was made in an epoch of {progress['steps']} steps, not"
                            f" {self.params['steps']}; give `steps_per_epoch`"
                        )
                    saving.restore(model, self.path)
            # Whatever it is, the workers that wait for the chief have to be told.
            except Exception as error:
                problem = " ".join(str(error).split()) or type(error).__name__
        place = np.array(
            [
                bool(problem),
                progress is not None,
                *((progress["epoch"], progress["step"]) if progress and not problem else (0, 0)),
            ]
        )
        failed, found, epoch, step = (int(value) for value in broadcast(state.strategy, [place])[0])
        if failed:
            reason = problem or "see its message"
            raise ValueError(
                f"The chief could not go on from its backup ({reason}); restore the file, or choose"
                f" another. Received: {str(self.path)!r}"
            )
        if not found:
            return
        broadcast_variables(state.strategy, variables_of(model))
        values = np.array(
            progress["metrics"] if progress else [0.0] * len(self._metric_variables())
        )
        self._metrics = broadcast(state.strategy, [values])[0].tolist() if step else None
        set_initial_epoch(model, epoch)
        state.skip = step

    def on_epoch_begin(self, epoch, logs=None):
        """Gives the metrics of a resumed epoch what they had."""
        if self._metrics is not None:
            for variable, value in zip(self._metric_variables(), self._metrics, strict=True):
                variable.assign(np.reshape(value, variable.shape).astype(variable.dtype))
            self._metrics = None
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Notes whether the step is one that was done before."""
        self._skipped = self.model.distribution.skip > 0

    def on_train_batch_end(self, batch, logs=None):
        """Saves, and stops if the workers have agreed to."""
        if self._skipped or batch + 1 == self.params["steps"]:
            return  # Behind the last step, `on_epoch_end` saves, once the epoch has its test.
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
        try:
            with zipfile.ZipFile(self.path) as archive:
                return json.loads(archive.read(PROGRESS))
        except (zipfile.BadZipFile, KeyError, ValueError):
            raise ValueError(
                "This is no whole backup of a run; restore it from a copy, or delete it. Received:"
                f" {str(self.path)!r}"
            ) from None
