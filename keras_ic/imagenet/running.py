"""One training on ImageNet, under any strategy, with a record; it goes on where it stopped."""

import contextlib
import pathlib
import signal
import threading
from collections.abc import Sequence
from typing import Any

import keras

from keras_ic import distribution, saving
from keras_ic.experiments.running import FINAL
from keras_ic.imagenet import inputs
from keras_ic.imagenet.history import BACKUP, EpochLines, agreed_lines, begin, lines_of
from keras_ic.imagenet.recipe import Recipe
from keras_ic.imagenet.setting import Setting, check_backend, prepared
from keras_ic.imagenet.sources import Source, find


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

    Every worker calls it alike. The chief's folder gets `record.jsonl`, which has a line more after
    each epoch, `backup.keras` meanwhile, and `model.keras` at the end; the others write nothing. A
    run that was stopped goes on from the last backup when all workers call it again, and comes to
    the same numbers: on CPUs to the last bit. SIGTERM or Ctrl-C to any worker stops all of them
    after the same step, with a backup.

    Args:
        recipe: The `Recipe`.
        out: Path of the folder of the run; the chief's counts.
        strategy: What `keras_ic.distribution.strategy` gave. Defaults to `None`: what it gives now.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own.
        by: How images are shared out among workers, `"auto"`, `"files"` or `"records"`; see
            `keras_ic.imagenet.Part`. Defaults to `"auto"`.
        backup_steps: Integer above 0, steps from one backup to the next; there is one after each
            epoch, too. Defaults to `500`.
        deterministic: Boolean. False lets images come as they are ready: somewhat faster, and never
            the same again. Defaults to `True`.
        jit_compile: `True`, `False` or `"auto"`, whether XLA compiles the step of a replica; see
            `keras_ic.distribution.prepare`. Defaults to `"auto"`.
        callbacks: Sequence of further Keras callbacks. Defaults to none.
        verbose: As in `fit`. Defaults to `"auto"`.

    Returns:
        The lines of the record, one dictionary an epoch: `epoch` from 1; `loss`, with the penalty
            and the smoothing; `accuracy` and `top5`;
        `val_loss`, the cross entropy alone, `val_accuracy` and `val_top5`, over every image of the
        validation set once; `seconds`; `step_seconds`, the mean time from step to step;
        `wait_seconds`, the part of it in which a step waited for images, `images_per_second` on all
        replicas, and `damaged`, how many damaged images the chief has met. On other workers, no
        lines.

    Raises:
        ValueError: If the batch cannot be shared out evenly; there are fewer images than a batch,
            or files than workers with `by="files"`; the folder holds another run; the backup is of
            another network.
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

    recipe = imagenet.named(
        "small", data=str(folder), model="resnet8", epochs=1, batch=2, image_size=32
    )
    if keras.backend.backend() == "tensorflow":
        (line,) = imagenet.run(recipe, folder / "run", verbose=0)
        assert line["epoch"] == 1 and line["damaged"] == 0
    ```
    """
    check_backend()
    strategy = distribution.strategy() if strategy is None else strategy
    sources = {split: find(recipe.data, split, data_dir) for split in ("train", "validation")}
    classes = _classes(sources)
    setting = Setting(recipe, strategy, by)
    steps = recipe.steps(sources["train"].examples)
    folder = pathlib.Path(out)
    backup = distribution.Backup(folder / BACKUP, backup_steps)
    before, epoch, step = agreed_lines(folder, recipe, setting, backup)
    if before is None:
        return lines_of(folder, recipe) if setting.is_chief else []
    model = prepared(recipe, strategy, classes, steps, jit_compile)
    damages = inputs.Damages(sources["train"].examples + sources["validation"].examples)
    for source in sources.values():
        for path in source.cut_off:
            inputs.LOG.warning(
                "shard cut off within a record, its last images are left out: %s", path
            )
    if setting.is_chief:
        begin(folder, recipe, model, steps, sources, setting, before[:epoch])
    lines = EpochLines(folder, recipe, damages)
    own = [*([keras.callbacks.SwapEMAWeights()] if recipe.ema else []), *callbacks, lines, backup]
    train = setting.distributed(
        lambda part, batch: inputs.training(
            sources["train"],
            batch,
            recipe.image_size,
            part,
            recipe.seed,
            epoch * steps + step,
            deterministic,
            damages,
        )
    )
    test = setting.distributed(
        lambda part, batch: inputs.validation(
            sources["validation"], batch, recipe.image_size, part, damages
        )
    )
    test_steps = inputs.validation_steps(
        sources["validation"], recipe.batch // setting.workers, inputs.Part(0, setting.workers, by)
    )
    lengths = {"steps_per_epoch": steps, "epochs": recipe.epochs, "validation_steps": test_steps}
    with _stopped_by_signals(model):
        try:
            model.fit(
                train,
                validation_data=test,
                callbacks=own,
                verbose=verbose,
                shuffle=False,
                **lengths,
            )
        # DamagedDataError comes through the graph as one of TensorFlow's errors; all others are
        # raised on.
        except Exception as error:
            if len(damages.names) > damages.limit:
                raise inputs.DamagedDataError(
                    f"{len(damages.names)} images are damaged, more than the {damages.limit} that"
                    " are passed over; mend them. Received:"
                    f" {', '.join(sorted(damages.names)[:3])}, ..."
                ) from error
            raise
    if not setting.is_chief:
        return []
    saving.save_model(model, folder / FINAL)
    (folder / BACKUP).unlink()
    return lines_of(folder, recipe)


def _classes(sources: dict[str, Source]) -> int:
    train, test = sources["train"].classes, sources["validation"].classes
    if train != test:
        odd = sorted(set(train) ^ set(test))
        raise ValueError(
            f"The two splits must have the same classes. Received: {len(train)} and {len(test)},"
            f" {', '.join(odd[:3])} in one alone"
        )
    return len(train)


@contextlib.contextmanager
def _stopped_by_signals(model):
    """Has SIGTERM and Ctrl-C ask for a stop that all workers make together; a second Ctrl-C stops
    at once.
    """
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
