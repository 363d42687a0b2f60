"""One training, on any data, which leaves a record and goes on where it stopped."""

import contextlib
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_ic import saving
from keras_ic.calibration import recalibrate
from keras_ic.distribution import jax_devices
from keras_ic.distribution.keras_fit import of_this_worker
from keras_ic.distribution.peers import peers_needed
from keras_ic.recalibration import Recalibration, too_short_for_momentum
from keras_ic.training import record as records
from keras_ic.training.checkpoint import CheckpointCallback
from keras_ic.training.config import TrainingConfig
from keras_ic.training.datasets import Dataset, make_dataset
from keras_ic.training.divergence import DivergedError, StopAtDivergence
from keras_ic.training.epoch_recorder import EpochRecorder
from keras_ic.training.networks import count_parameters, is_rewritten
from keras_ic.training.rate_schedule import RateSchedule, ic_layers, rates_over_depth
from keras_ic.training.record import Record
from keras_ic.training.stopping import stopped_by_signals
from keras_ic.training.workers import Workers
from keras_ic.utils.folder_lock import folder_lock

CHECKPOINT, FINAL = "checkpoint.keras", "model.keras"


def run(
    config: TrainingConfig,
    out: Any,
    strategy: Any = None,
    data_dir: Any = None,
    share_by: str = "auto",
    checkpoint_steps: int | None = None,
    deterministic: bool = True,
    jit_compile: bool | str = "auto",
    callbacks: Sequence = (),
    verbose: Any = "auto",
) -> Record | None:
    """Trains the network of a configuration, or goes on with it, and leaves a record and a model.

    The folder gets `record.jsonl`, which has a line more after each epoch, `checkpoint.keras`
    meanwhile, and `model.keras` at the end. A run that was stopped, also by kill -9, goes on from
    its last checkpoint when it is called again, and comes to the same numbers: on a CPU to the last
    bit; on a GPU as nearly as two unbroken runs agree, unless TensorFlow is made exact with
    `tf.config.experimental.enable_op_determinism()`. SIGTERM and Ctrl-C stop it after a step, with
    a checkpoint.

    Under a strategy of several workers every worker calls it alike, and the chief alone writes. A
    signal to any of them stops all of them after the same step. On JAX a run may go on with other
    devices and another number of processes, to the same numbers but for rounding.

    Args:
        config: The `TrainingConfig`.
        out: Path of the folder of the run, which is made if it is not there; the chief's counts.
        strategy: What `keras_ic.distribution.strategy` gave. On TensorFlow the training is then
            `fit` of a model of `keras_ic.distribution.prepare`; on JAX the distribution, such as
            `keras.distribution.DataParallel`, is made Keras's. Defaults to `None`: plain `fit`, on
            one device, or on JAX with the distribution of Keras that is set already.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own,
            `~/tensorflow_datasets`.
        share_by: How image files are shared out among workers, `"auto"`, `"files"` or `"records"`;
            see `keras_ic.training.datasets.Part`. Defaults to `"auto"`.
        checkpoint_steps: Integer above 0, steps from one checkpoint to the next; there is one after
            each epoch, too. Defaults to `None`: those alone.
        deterministic: Boolean. False lets images of files come as they are ready: somewhat faster,
            and never the same again. Defaults to `True`.
        jit_compile: `True`, `False` or `"auto"`, whether XLA compiles the step; under a strategy,
            see `keras_ic.distribution.prepare`. Defaults to `"auto"`.
        callbacks: Sequence of further Keras callbacks, such as `keras_ic.IndependenceMonitor`.
            Defaults to none.
        verbose: `"auto"`, 0, 1 or 2, as in `fit`; `"auto"` draws bars in a terminal and gives a
            line an epoch elsewhere.

    Returns:
        The `Record` of the finished run; None on workers other than the chief.

    Raises:
        ValueError: If the folder holds a run of another configuration, a damaged record or
            checkpoint, a model without its record, or another process's run; if the images or the
            batch do not suit the configuration; if the loss is not finite any more.
        MissingDataError: If the images are neither there nor to be had.
        DamagedDataError: If too many images are damaged.
        LostPeerError: If another worker is gone.
        NotImplementedError: For `accumulate` on another backend than TensorFlow; for a strategy on
            torch.
        KeyboardInterrupt: After a signal, with everything saved.
        OSError: If the disk is full; the same call goes on when there is room again.

    Example:

    ```python
    import tempfile
    from keras_ic.training import TrainingConfig, run

    config = TrainingConfig(data="digits", model="small", epochs=2)
    record = run(config, tempfile.mkdtemp(), verbose=0)
    assert len(record.values("val_accuracy")) == 2 and record.is_finished
    ```
    """
    workers, folder = Workers(config, strategy), pathlib.Path(out)
    before, is_finished = _before(config, folder, workers)
    if is_finished:
        return before
    dataset = make_dataset(config, data_dir, share_by, deterministic)
    workers.check(dataset)
    model = workers.model(dataset, jit_compile)
    lock = folder_lock(folder) if workers.is_chief else contextlib.nullcontext()
    with lock, peers_needed(workers.workers), stopped_by_signals() as stop:
        # Once more, since another process may have had the folder meanwhile.
        before, _ = _before(config, folder, workers)
        checkpoint = CheckpointCallback(folder / CHECKPOINT, checkpoint_steps, stop)
        place = checkpoint.restore(model)
        if workers.is_chief:
            records.begin(folder, _head(config, dataset, model, workers), before, place[0])
        if workers.is_chief and config.recalibrate == "off":
            _tell(too_short_for_momentum(model, dataset.steps * config.epochs))
        with stop.after_a_step():
            _fit(model, dataset, workers, folder, checkpoint, place, callbacks, verbose)
        _finish(dataset, model, workers, folder)
        if workers.is_chief and config.recalibrate == "off":
            _tell(too_short_for_momentum(model, dataset.steps * config.epochs))
    return records.read(folder) if workers.is_chief else None


def _before(
    config: TrainingConfig, folder: pathlib.Path, workers: Workers
) -> tuple[Record | None, bool]:
    """The record of the run so far (of the chief alone), and whether it is finished.

    An error on all workers if the folder is another run's, or what is in it does not fit together.
    """
    record, problem, is_finished = None, None, False
    if workers.is_chief:
        try:
            if records.is_begun(folder, (CHECKPOINT, FINAL)):
                record = records.read(folder)
                records.check_same(folder, record.config.to_dict(), config.to_dict())
                is_finished = (folder / FINAL).exists()
                _check_epochs(record, folder, is_finished)
        except (ValueError, OSError) as error:
            problem = error
    refused, finished = workers.agree([problem is not None, is_finished])
    if refused:
        raise problem or ValueError(
            f"The chief cannot use its folder; see its message. Received: {str(folder)!r}"
        )
    return record, bool(finished)


def _check_epochs(record: Record, folder: pathlib.Path, is_finished: bool) -> None:
    done = CheckpointCallback(folder / CHECKPOINT).place()[0]
    if (is_finished and not record.is_finished) or len(record.epochs) < done:
        what = "finished run" if is_finished else "run with a checkpoint"
        raise ValueError(
            f"The record of this {what} lacks epochs; restore it, or choose another folder."
            f" Received: {str(folder)!r}"
        )


def _head(
    config: TrainingConfig, dataset: Dataset, model: keras.Model, workers: Workers
) -> dict[str, Any]:
    configuration = config.to_dict()
    return {
        "schema": records.SCHEMA,
        "seed": configuration.pop("seed"),
        "configuration": configuration,
        "rewritten": is_rewritten(config),
        "versions": records.versions(),
        "parameters": count_parameters(model),
        "steps": dataset.steps,
        "images": dict(dataset.sizes),
        **workers.place,
    }


def _fit(model, dataset, workers, folder, checkpoint, place, callbacks, verbose) -> None:
    """Trains from a place on: first the rest of an epoch alone, then all others."""
    config = workers.config
    own: list[Any] = [StopAtDivergence(lambda: checkpoint.offset)]
    layers = ic_layers(model)
    if config.rate_schedule != "constant":
        rates = rates_over_depth(config, len(layers))
        own.append(RateSchedule(config.rate_schedule, config.epochs, rates))
    if config.ema:
        own.append(keras.callbacks.SwapEMAWeights())
    if config.recalibrate == "each":
        own.append(Recalibration(dataset.calibration(), dataset.calibration_steps))
    damages = getattr(dataset, "damages", None)
    recorder = EpochRecorder(folder, None if damages is None else lambda: len(damages.names))
    validation = workers.distributed(dataset.validation)
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    while place[0] < config.epochs:
        epoch, step = place
        start = epoch * dataset.steps + step
        if step and not workers.is_prepared:
            _build_metrics(model, dataset, workers.shard.replicas)
        try:
            model.fit(
                workers.distributed(lambda shard, start=start: dataset.train(start, shard)),
                steps_per_epoch=dataset.steps - step,
                shuffle=False,  # the images come shuffled
                validation_data=validation,
                validation_steps=dataset.validation_steps(workers.shard),
                initial_epoch=epoch,
                epochs=epoch + 1 if step else config.epochs,
                callbacks=of_this_worker(
                    [*own, *callbacks, recorder, checkpoint], workers.is_chief
                ),
                verbose=verbose if workers.is_chief else 0,
            )
        except DivergedError as error:
            raise DivergedError(
                f"{error}; take a smaller learning rate. Received:"
                f" learning_rate={config.learning_rate}"
            ) from None
        except Exception as error:
            failure = dataset.failure(error)
            if failure is error:
                raise
            raise failure from error
        if not step or epoch + 1 == config.epochs:
            return
        # The end of `fit` puts an average of the weights in their place; the checkpoint has both.
        place = checkpoint.restore(model)
    # Nothing was left to train, so that no `fit` has done it.
    model.optimizer.finalize_variable_values(model.trainable_variables)


def _build_metrics(model: keras.Model, dataset: Dataset, images: int) -> None:
    """Keras builds metrics in the first step, which is too late to give them their values."""
    x: Any = np.zeros((images, *dataset.shape), "float32" if dataset.is_standardized else "uint8")
    y: Any = np.zeros(images, "int64")
    model.test_on_batch(x, np.eye(dataset.classes, dtype="float32")[y] if dataset.is_one_hot else y)


def _finish(dataset: Dataset, model: keras.Model, workers: Workers, folder: pathlib.Path) -> None:
    """Leaves what stays. All workers take part in the evaluation; the chief writes."""
    if workers.config.recalibrate == "end":
        recalibrate(model, dataset.calibration(), verbose=0)
        result = model.evaluate(
            workers.distributed(dataset.validation),
            steps=dataset.validation_steps(workers.shard),
            verbose=0,
            return_dict=True,
        )
        found = {"val_loss": result["cross_entropy"], "val_accuracy": result["accuracy"]}
        if workers.is_chief:
            records.append(folder, {"recalibrated": found})
    if workers.is_chief:
        with jax_devices.of_chief_alone():
            saving.save_model(model, folder / FINAL)
        (folder / CHECKPOINT).unlink(missing_ok=True)


def _tell(notice: str | None) -> None:
    if notice:
        print(notice, flush=True)
