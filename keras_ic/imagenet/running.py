"""One training on ImageNet, under any strategy, which leaves a record and goes on where it stopped."""

import contextlib
import json
import math
import pathlib
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_ic import distribution, files
from keras_ic.distribution.agreement import from_chief, number_of_workers, worker_index
from keras_ic.experiments import record as records
from keras_ic.experiments.running import FINAL, versions
from keras_ic.imagenet import inputs
from keras_ic.imagenet.building import compile_for, network
from keras_ic.imagenet.recipe import Recipe
from keras_ic.imagenet.sources import Source, find
from keras_ic.validation import checked_int

BACKUP = "backup.keras"
METRICS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "top5": "top5",
    "val_loss": "val_cross_entropy",
    "val_accuracy": "val_accuracy",
    "val_top5": "val_top5",
}


def run(
    recipe: Recipe,
    out: Any,
    strategy: Any = None,
    data_dir: Any = None,
    by: str = "auto",
    backup_steps: int = 500,
    deterministic: bool = True,
    jit_compile: bool | str = "auto",
    callbacks: Sequence = (),
    verbose: Any = "auto",
) -> list[dict[str, Any]]:
    """Trains the network of a recipe, or goes on with it.

    Every worker calls it alike. The chief's folder gets `record.jsonl`, which has a line more after each epoch, `backup.keras` meanwhile, and
    `model.keras` at the end; the others write nothing. A run that was stopped goes on from the last backup when all workers call it again, and comes
    to the same numbers: on CPUs to the last bit. SIGTERM or Ctrl-C to any worker stops all of them after the same step, with a backup.

    Args:
        recipe: The `Recipe`.
        out: Path of the folder of the run; the chief's counts.
        strategy: What `keras_ic.distribution.strategy` gave. Defaults to `None`: what it gives now.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own.
        by: How images are shared out among workers, `"auto"`, `"files"` or `"records"`; see `keras_ic.imagenet.Part`. Defaults to `"auto"`.
        backup_steps: Integer above 0, steps from one backup to the next; there is one after each epoch, too. Defaults to `500`.
        deterministic: Boolean. False lets images come as they are ready: somewhat faster, and never the same again. Defaults to `True`.
        jit_compile: `True`, `False` or `"auto"`, whether XLA compiles the step of a replica; see `keras_ic.distribution.prepare`. Defaults to
            `"auto"`.
        callbacks: Sequence of further Keras callbacks. Defaults to none.
        verbose: As in `fit`. Defaults to `"auto"`.

    Returns:
        The lines of the record, one dictionary an epoch: `epoch` from 1; `loss`, with the penalty and the smoothing; `accuracy` and `top5`;
        `val_loss`, the cross entropy alone, `val_accuracy` and `val_top5`, over every image of the validation set once; `seconds`; `step_seconds`,
        the mean time from step to step; `wait_seconds`, the part of it in which a step waited for images, `images_per_second` on all replicas, and
        `damaged`, how many damaged images the chief has met. On other workers, no lines.

    Raises:
        ValueError: If the batch cannot be shared out evenly; there are fewer images than a batch, or files than workers with `by="files"`; the folder
            holds another run; the backup is of another network.
        MissingDataError: If the images or one of the splits are not there.
        LostPeerError: If another worker is gone.
        DamagedDataError: If too many images are damaged.
        KeyboardInterrupt: After a signal, with everything saved.
        NotImplementedError: On another backend than TensorFlow.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    import numpy as np
    from keras_ic import imagenet

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / name, np.zeros((40, 40, 3)))

    recipe = imagenet.named("small", data=str(folder), model="resnet8", epochs=1, batch=2, image_size=32)
    if keras.backend.backend() == "tensorflow":
        (line,) = imagenet.run(recipe, folder / "run", verbose=0)
        assert line["epoch"] == 1 and line["damaged"] == 0
    ```
    """
    check_backend()
    strategy = distribution.strategy() if strategy is None else strategy
    sources = {split: find(recipe.data, split, data_dir) for split in ("train", "validation")}
    classes = _classes(sources)
    setting = _Setting(recipe, strategy, by)
    steps = recipe.steps(sources["train"].examples)
    folder = pathlib.Path(out)
    backup = distribution.Backup(folder / BACKUP, backup_steps)
    before, epoch, step = _agreed_lines(folder, recipe, setting, backup)
    if before is None:
        return _lines(folder, recipe) if setting.is_chief else []
    model = prepared(recipe, strategy, classes, steps, jit_compile)
    damages = inputs.Damages(sources["train"].examples + sources["validation"].examples)
    for source in sources.values():
        for path in source.cut_off:
            inputs.LOG.warning("shard cut off within a record, its last images are left out: %s", path)
    if setting.is_chief:
        _begin(folder, recipe, model, steps, sources, setting, before[:epoch])
    lines = _Lines(folder, recipe, damages)
    own = [*([keras.callbacks.SwapEMAWeights()] if recipe.ema else []), *callbacks, lines, backup]
    train = setting.distributed(
        lambda part, batch: inputs.training(
            sources["train"], batch, recipe.image_size, part, recipe.seed, epoch * steps + step, deterministic, damages
        )
    )
    test = setting.distributed(lambda part, batch: inputs.validation(sources["validation"], batch, recipe.image_size, part, damages))
    test_steps = inputs.validation_steps(sources["validation"], recipe.batch // setting.workers, inputs.Part(0, setting.workers, by))
    lengths = {"steps_per_epoch": steps, "epochs": recipe.epochs, "validation_steps": test_steps}
    with _stopped_by_signals(model):
        try:
            model.fit(train, validation_data=test, callbacks=own, verbose=verbose, shuffle=False, **lengths)
        except Exception as error:  # DamagedDataError comes through the graph as one of TensorFlow's errors; all others are raised on.
            if len(damages.names) > damages.limit:
                raise inputs.DamagedDataError(
                    f"{len(damages.names)} images are damaged, more than the {damages.limit} that are passed over; mend them. "
                    f"Received: {', '.join(sorted(damages.names)[:3])}, ..."
                ) from error
            raise
    if not setting.is_chief:
        return []
    files.save_model(model, folder / FINAL)
    (folder / BACKUP).unlink()
    return _lines(folder, recipe)


def throughput(recipe: Recipe, strategy: Any = None, steps: int = 30, jit_compile: bool | str = "auto", classes: int = 1000) -> dict[str, float]:
    """Times the training step alone, on one and the same random images.

    Args:
        recipe: The `Recipe`.
        strategy: What `keras_ic.distribution.strategy` gave. Defaults to `None`: what it gives now.
        steps: Integer above 0, how many are timed, after 3 that are not. Defaults to `30`.
        jit_compile: As in `run`.
        classes: Integer above 0. Defaults to `1000`.

    Returns:
        Dictionary with `step_seconds`, the mean, and `images_per_second` on all replicas.

    Raises:
        ValueError: For an argument that the above excludes, or a batch that cannot be shared out evenly.
        NotImplementedError: On another backend than TensorFlow.

    Example:

    ```python
    import keras
    from keras_ic import distribution, imagenet

    recipe = imagenet.named("small", model="resnet8", batch=4, image_size=32)
    if keras.backend.backend() == "tensorflow":
        assert imagenet.throughput(recipe, distribution.strategy("one"), steps=2, classes=10)["images_per_second"] > 0
    ```
    """
    check_backend()
    steps = checked_int("steps", steps, "an integer above 0", lambda value: value > 0)
    classes = checked_int("classes", classes, "an integer above 0", lambda value: value > 0)
    strategy = distribution.strategy() if strategy is None else strategy
    setting = _Setting(recipe, strategy, "auto")
    model = prepared(recipe, strategy, classes, steps, jit_compile)
    data = setting.distributed(lambda part, batch: inputs.synthetic(batch, recipe.image_size, classes))
    times: list[float] = []

    def note(batch, logs):
        float(next(iter(logs.values())))  # waits for the step
        times.append(time.perf_counter())

    model.fit(data, steps_per_epoch=steps + 3, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)], verbose=0, shuffle=False)
    seconds = (times[-1] - times[2]) / steps
    return {"step_seconds": seconds, "images_per_second": recipe.batch / seconds}


def check_backend() -> None:
    """Refuses every backend but TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(
            f"This training needs the TensorFlow backend; on JAX, give `fit` a network and batches of keras_ic.imagenet under "
            f"keras_ic.distribution.strategy(). Received: backend {keras.backend.backend()!r}"
        )


def prepared(recipe: Recipe, strategy: Any, classes: int, steps: int, jit_compile: bool | str = "auto") -> keras.Model:
    """The network of a recipe, compiled and prepared for a strategy, with its optimizer built."""
    with strategy.scope():
        model = distribution.prepare(network(recipe, classes), recipe.accumulate, jit_compile)
        compile_for(model, recipe, steps)
        model.optimizer.build(model.trainable_variables)
    return model


class _Setting:
    """Who this process is among the workers, and how much of a batch is its own."""

    def __init__(self, recipe, strategy, by):
        self.strategy, self.replicas, self.by = strategy, strategy.num_replicas_in_sync, by
        self.share = recipe.share(self.replicas)
        self.workers, self.worker = number_of_workers(strategy), worker_index(strategy)
        self.is_chief = self.worker == 0

    def distributed(self, make):
        """The dataset that `make` gives for this worker's part of a global batch, handed to its replicas."""
        import tensorflow as tf

        def of_worker(context):
            local = self.replicas // context.num_input_pipelines
            part = inputs.Part(context.input_pipeline_id, context.num_input_pipelines, self.by)
            dataset = make(part, self.share * local).rebatch(self.share, drop_remainder=True)
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
            return dataset.with_options(options)

        return self.strategy.distribute_datasets_from_function(of_worker)


class _Lines(keras.callbacks.Callback):
    """Writes the chief's line of each epoch."""

    chief_only = True

    def __init__(self, folder, recipe, damages):
        super().__init__()
        self.folder, self.recipe, self.damages = folder, recipe, damages

    def on_epoch_begin(self, epoch, logs=None):
        self.start, self.first, self.last, self.steps = time.perf_counter(), 0.0, 0.0, 0

    def on_train_batch_begin(self, batch, logs=None):
        if not self.first:
            self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if not logs:
            return  # done before a stop
        if not self.first:  # The first step compiles, and counts only where there is no other.
            self.first, self.waited = time.perf_counter(), self.model.distribution.waited
        elif batch + 1 < self.params["steps"]:
            self.steps += 1
        else:
            float(logs["loss"])  # waits for the step
            self.steps += 1
        self.last = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        values = {name: logs[key] if math.isfinite(logs[key]) else None for name, key in METRICS.items()}
        steps = max(self.steps, 1)
        step = (self.last - (self.first if self.steps else self.begin)) / steps
        waited = (self._waited_at_end - self.waited) / steps
        times = {"seconds": time.perf_counter() - self.start, "step_seconds": step, "wait_seconds": waited}
        line = {"epoch": epoch + 1, **values, **{name: round(value, 6) for name, value in times.items()}}
        line["images_per_second"] = round(self.recipe.batch / step, 1) if self.steps else None
        records.append(self.folder, {**line, "damaged": len(self.damages.names)})
        if line["images_per_second"]:
            print(
                f" {line['images_per_second']:g} images/s; a step {1000 * step:.0f} ms, of which {1000 * waited:.0f} ms waiting for images",
                flush=True,
            )

    def on_test_begin(self, logs=None):
        self._waited_at_end = self.model.distribution.waited


def _classes(sources: dict[str, Source]) -> int:
    train, test = sources["train"].classes, sources["validation"].classes
    if train != test:
        odd = sorted(set(train) ^ set(test))
        raise ValueError(f"The two splits must have the same classes. Received: {len(train)} and {len(test)}, {', '.join(odd[:3])} in one alone")
    return len(train)


def _agreed_lines(
    folder: pathlib.Path, recipe: Recipe, setting: _Setting, backup: distribution.Backup
) -> tuple[list[dict[str, Any]] | None, int, int]:
    """The chief's epochs so far (no lines on other workers; None on all if the run is finished), and the epoch and step at which to go on.

    An error on all workers if the folder is another run's, or what is in it does not fit together.
    """
    lines: list[dict[str, Any]] = []
    problem, finished, place = None, False, (0, 0)
    if setting.is_chief:
        try:
            lines, place = _lines(folder, recipe), backup.place()
            finished = (folder / FINAL).exists()
            if len(lines) < (recipe.epochs if finished else place[0]):
                what = "finished run" if finished else "run with a backup"
                raise ValueError(f"The record of this {what} lacks epochs; restore it, or choose another folder. Received: {str(folder)!r}")
        except (ValueError, OSError) as error:
            problem = error
    agreed = from_chief(setting.strategy, [np.array([problem is not None, finished, *place])])[0]
    refused, done, epoch, step = (int(value) for value in agreed)
    if refused:
        raise problem or ValueError(f"The chief cannot use its folder; see its message. Received: {str(folder)!r}")
    return (None if done else lines), epoch, step


def _lines(folder: pathlib.Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The epochs so far, if the folder holds a run of this recipe."""
    if not records.is_begun(folder, (BACKUP, FINAL)):
        return []
    path = folder / records.NAME
    try:
        # What has no end of line was being written when the run was stopped; the epoch will be run again.
        head, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        was = {**head["configuration"], "seed": head["seed"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"This record is damaged ({type(error).__name__}: {error}); restore it, or choose another folder. Received: {str(path)!r}"
        ) from None
    records.check_same(folder, was, recipe.to_dict())
    return lines


def _begin(folder, recipe, model, steps, sources, setting, epochs) -> None:
    configuration = recipe.to_dict()
    head = {
        "configuration": configuration,
        "seed": configuration.pop("seed"),
        "versions": versions(),
        "parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "steps": steps,
        "images": {split: source.examples for split, source in sources.items()},
        "replicas": setting.replicas,
        "workers": setting.workers,
    }
    records.begin(folder, head, epochs)


@contextlib.contextmanager
def _stopped_by_signals(model):
    """Has SIGTERM and Ctrl-C ask for a stop that all workers make together; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number, frame):
        if number == signal.SIGINT and model.distribution.stop_wanted:
            raise KeyboardInterrupt
        model.distribution.stop_wanted = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
