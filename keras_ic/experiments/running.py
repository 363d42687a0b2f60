"""One run of one configuration, which leaves a record and goes on where it stopped."""

import functools
import importlib
import math
import os
import pathlib
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_ic import calibration, data, saving
from keras_ic.experiments import record as records
from keras_ic.experiments.configuration import Configuration
from keras_ic.experiments.divergence import DivergedError, StopAtDivergence, explain
from keras_ic.experiments.networks import network, rates
from keras_ic.experiments.record import Record
from keras_ic.experiments.schedules import RateSchedule, ic_layers, optimizer
from keras_ic.version import __version__

CHECKPOINT, FINAL = "checkpoint.keras", "model.keras"
TEST_BATCH = 250


def run(
    configuration: Configuration,
    out: Any,
    data_dir: Any = None,
    callbacks: Sequence = (),
    verbose: Any = "auto",
) -> Record:
    """Trains the network of a configuration, or goes on with it, and leaves a record and a model.

    The folder gets `record.jsonl`, which has a line more after each epoch, `checkpoint.keras`
    meanwhile, and `model.keras` at the end. A run that was stopped, also by kill -9, goes on after
    its last whole epoch when it is called again, and comes to the same numbers: on a CPU to the
    last bit; on a GPU as nearly as two unbroken runs agree, unless TensorFlow is made exact with
    `tf.config.experimental.enable_op_determinism()`.

    Args:
        configuration: The `Configuration`.
        out: Path of the folder of the run, which is made if it is not there.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own,
            `~/tensorflow_datasets`.
        callbacks: Sequence of further Keras callbacks, such as `keras_ic.IndependenceMonitor`.
            Defaults to none.
        verbose: `"auto"`, 0, 1 or 2, as in `fit`; `"auto"` draws bars in a terminal and gives a
            line an epoch elsewhere.

    Returns:
        The `Record` of the finished run.

    Raises:
        ValueError: If the folder holds a run of another configuration, a damaged record or
            checkpoint, or a model without its record; if there are fewer images than `train_size`;
            if the loss is not finite any more, saying at which step, and which layer's values went
            first.
        MissingDataError: If the images are neither there nor to be had.
        OSError: If the disk is full; the same call goes on when there is room again.

    Example:

    ```python
    import tempfile
    from keras_ic.experiments import Configuration, run

    record = run(
        Configuration(data="digits", model="small", epochs=2), tempfile.mkdtemp(), verbose=0
    )
    assert len(record.values("val_accuracy")) == 2 and record.is_finished
    ```
    """
    folder = pathlib.Path(out)
    before = _checked_folder(folder, configuration)
    if before is not None and (folder / FINAL).exists():
        if not before.is_finished:
            raise ValueError(
                "The record of this finished run lacks epochs; restore it, or choose another"
                f" folder. Received: {str(folder)!r}"
            )
        return before

    (x, y), (x_judged, y_judged) = images(configuration, data_dir)
    model = network(configuration, x.shape[1:], data.CLASSES[configuration.data])
    steps = math.ceil(len(x) / configuration.batch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer(configuration, steps * configuration.epochs, model), loss, metrics=["accuracy"]
    )
    model.optimizer.build(model.trainable_variables)
    start, done = [keras.ops.convert_to_numpy(variable) for variable in model.variables], 0
    if (folder / CHECKPOINT).exists():
        saving.restore(model, folder / CHECKPOINT)
        done = int(model.optimizer.iterations) // steps
    epochs = before.epochs[:done] if before is not None else []
    if len(epochs) < done:
        raise ValueError(
            "The record of this run has fewer epochs than its checkpoint; choose another folder."
            f" Received: {str(folder)!r}"
        )
    records.begin(folder, _head(configuration, model, steps), epochs)

    mean, std = data.channel_statistics(x)

    def batches(epoch, epochs):
        order = {
            "augment": configuration.augment,
            "seed": configuration.seed,
            "epoch": epoch,
            "epochs": epochs,
        }
        return data.training_dataset(x, y, configuration.batch, mean, std, **order)

    def rewind(model):
        if (folder / CHECKPOINT).exists():
            saving.restore(model, folder / CHECKPOINT)
        else:
            for variable, value in zip(model.variables, start, strict=True):
                variable.assign(value)
            for variable in model.optimizer.variables:
                if variable is not model.optimizer._learning_rate:
                    variable.assign(keras.ops.zeros(variable.shape, variable.dtype))

    validation = data.test_dataset(x_judged, y_judged, TEST_BATCH, mean, std)
    if done < configuration.epochs:
        divergence = StopAtDivergence()
        own = [
            RateSchedule(configuration, rates(configuration, len(ic_layers(model)))),
            divergence,
            _Keep(folder),
        ]
        try:
            model.fit(
                batches(done, configuration.epochs - done),
                steps_per_epoch=steps,
                shuffle=False,  # the images come shuffled
                validation_data=validation,
                initial_epoch=done,
                epochs=configuration.epochs,
                callbacks=[*own, *callbacks],
                verbose=(1 if sys.stdout.isatty() else 2) if verbose == "auto" else verbose,
            )
        except DivergedError:
            assert divergence.at is not None
            what = explain(divergence.at, model, batches(divergence.at[0], 1), rewind)
            raise DivergedError(
                f"{what}; take a smaller learning rate. Received:"
                f" learning_rate={configuration.learning_rate}"
            ) from None
    if configuration.recalibrate:
        calibration.recalibrate(model, data.test_dataset(x, y, TEST_BATCH, mean, std), verbose=0)
        result = model.evaluate(validation, verbose=0, return_dict=True)
        records.append(
            folder,
            {"recalibrated": {"val_loss": result["loss"], "val_accuracy": result["accuracy"]}},
        )
        saving.save_model(model, folder / CHECKPOINT)
    os.replace(folder / CHECKPOINT, folder / FINAL)
    return records.read(folder)


class _Keep(keras.callbacks.Callback):
    """After each epoch, its line in the record first, then the checkpoint, which makes the epoch
    count.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch, logs=None):
        self.start, self.steps = time.perf_counter(), []

    def on_train_batch_begin(self, batch, logs=None):
        self.step_start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(time.perf_counter() - self.step_start)

    def on_epoch_end(self, epoch, logs=None):
        metrics = {
            name: logs[name] if math.isfinite(logs[name]) else None for name in records.METRICS
        }
        times = {
            "seconds": round(time.perf_counter() - self.start, 3),
            "step_seconds": round(float(np.median(self.steps)), 6),
        }
        records.append(self.folder, {"epoch": epoch + 1, **metrics, **times})
        saving.save_model(self.model, self.folder / CHECKPOINT)


def _checked_folder(folder: pathlib.Path, configuration: Configuration) -> Record | None:
    """The record of the run so far, if the folder holds one of this configuration."""
    if not records.is_begun(folder, (CHECKPOINT, FINAL)):
        return None
    before = records.read(folder)
    records.check_same(folder, before.configuration.to_dict(), configuration.to_dict())
    if before.versions != versions() and not before.is_finished:
        warnings.warn(
            f"This run was begun with other versions, {before.versions}: its numbers may differ"
            " from an unbroken run's.",
            stacklevel=3,
        )
    return before


def images(configuration: Configuration, data_dir: Any = None):
    """The images of a run, `((x, y), (x, y))`: those that it is trained on, and those that it is
    judged on.
    """
    (x, y), test = _loaded(configuration.data, data_dir)
    size = configuration.train_size
    if size is not None and size > len(x):
        raise ValueError(
            f"`train_size` must be at most {len(x)}, the number of training images. Received:"
            f" train_size={size}"
        )
    x, y = x[:size], y[:size]
    left_out = round(configuration.validation * len(x))
    if not left_out:
        if configuration.validation:
            raise ValueError(
                f"`validation` must leave out an image of {len(x)} at least. Received:"
                f" validation={configuration.validation}"
            )
        return (x, y), test
    order = np.random.RandomState(0).permutation(len(x))
    judged, kept = np.sort(order[:left_out]), np.sort(order[left_out:])
    if not len(kept):
        raise ValueError(
            "`validation` must leave images to train on. Received:"
            f" validation={configuration.validation} of {len(x)} images"
        )
    return (x[kept], y[kept]), (x[judged], y[judged])


@functools.lru_cache(maxsize=1)
def _loaded(name, data_dir):
    """The arrays of an image set, kept for the next run of a grid or a search: CIFAR-10 takes
    seconds to be read.
    """
    return data.load(name, data_dir)


def _head(configuration: Configuration, model: keras.Model, steps: int) -> dict[str, Any]:
    values = configuration.to_dict()
    seed = values.pop("seed")
    parameters = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return {
        "configuration": values,
        "seed": seed,
        "versions": versions(),
        "parameters": parameters,
        "steps": steps,
    }


def versions() -> dict[str, str]:
    """The versions of this package, Keras, NumPy, Python and the backend, which a record keeps."""
    backend = keras.backend.backend()
    numbers = {
        "keras_ic": __version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return {**numbers, backend: importlib.import_module(backend).__version__}
