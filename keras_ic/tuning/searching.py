"""A search: trials of IC networks, chosen by an oracle of Keras Tuner, which leave a record and go
on where they stopped.
"""

import dataclasses
import math
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_ic.training import datasets
from keras_ic.training.config import TrainingConfig
from keras_ic.training.networks import network
from keras_ic.training.rate_schedule import ic_layers
from keras_ic.tuning import best, board, description, remote
from keras_ic.tuning.description import Search
from keras_ic.tuning.oracles import make_oracle
from keras_ic.tuning.reporting import accuracy, report
from keras_ic.tuning.space import SearchSpace
from keras_ic.tuning.trial_queue import TrialQueue
from keras_ic.tuning.worker import work
from keras_ic.tuning.workers import LOGS, Workers
from keras_ic.utils.folder_lock import folder_lock
from keras_ic.utils.lazy_imports import needed
from keras_ic.utils.validation import natural_int


def search(
    recipe: TrainingConfig,
    out: Any,
    space: SearchSpace | None = None,
    tuner: str = "bayesian",
    trials: int = 20,
    seeds: int = 1,
    prune: bool = False,
    workers: int = 0,
    data_dir: Any = None,
    callbacks: Sequence = (),
    verbose: int = 1,
) -> dict[str, Any]:
    """Searches dropout rates and what goes with them, or goes on with a search.

    Each trial trains the recipe with what its oracle has chosen, and is judged after its last
    epoch, on the part of the training images that `recipe.validation` leaves out. At the end, the
    best trial's models are judged on the test set, once. What sets nothing in the networks of the
    recipe is not searched; see `SearchSpace.for_layers`.

    The folder gets `search.json`, what is searched; `trials.jsonl`, a line for each trial that has
    ended, with `trial`, `values`, `score`, `status` (`"COMPLETED"`, `"PRUNED"`, or `"FAILED"` with
    its `error`); `trials`, with the record of every run; `tensorboard`; `oracle.json`, the state;
    and at the end `best.keras`, `best.json`, and what `report` makes. A search that was stopped,
    also by kill -9, goes on when it is called again: the trial that was running from its last
    epoch, and then with the trials that would have come.

    With `KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT` in the
    environment, this process is one of many, on machines that have the folder in common: the chief,
    if its id has "chief" in it, else a worker.

    Args:
        recipe: A `TrainingConfig`, what all trials have in common. What the space chooses takes the
            place of its values, and `seed` is that of the search and of the first run of each
            trial. Its `validation` must be above 0 for a set in memory; image files are judged on
            their validation images.
        out: Path of the folder of the search, which is made if it is not there.
        space: A `SearchSpace`. Defaults to `None`: the default one.
        tuner: Which oracle of Keras Tuner chooses: `"random"`, `"bayesian"`, `"hyperband"` or
            `"grid"`. Defaults to `"bayesian"`.
        trials: Integer above 0, how many at most. It may be changed while the search has not come
            to its end. Defaults to `20`.
        seeds: Integer above 0, runs of each trial, whose mean is its score. Defaults to `1`.
        prune: Boolean, whether a trial is stopped whose best epoch is below the median of the
            others' means so far. Defaults to `False`.
        workers: Integer of 0 or more, processes on this machine that share the trials; those of a
            chief, beside those of other machines. They are renewed every ten trials, since
            TensorFlow keeps some memory of every trained model. Defaults to `0`: this process
            alone.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own.
        callbacks: Sequence of further Keras callbacks for every run of this process. Defaults to
            none.
        verbose: 0, or 1 for a line a trial. Defaults to `1`.

    Returns:
        Dictionary of what is in `best.json`: the best trial's line of the record, the
        `test_accuracies` of its seeds (of a set in memory), and the `command` that trains it on all
        training images. A worker returns an empty one.

    Raises:
        ValueError: For an argument that the above excludes; if the folder holds another search, a
            damaged one, or one that another process runs; if no trial came to its end.
        ConnectionError: If the chief does not answer a worker.
        MissingDataError: If the images are neither there nor to be had.
        ImportError: If a library of the extra is not installed.
        OSError: If the disk is full, or the chief's address is taken; the same call goes on later.

    Example:

    ```python
    import tempfile
    from keras_ic.training import TrainingConfig
    from keras_ic.tuning import SearchSpace, search

    recipe = TrainingConfig(data="digits", model="small", epochs=1, train_size=64, validation=0.25)
    found = search(
        recipe,
        tempfile.mkdtemp(),
        SearchSpace(depths="uniform"),
        tuner="random",
        trials=2,
        verbose=0,
    )
    assert found["status"] == "COMPLETED" and 0 <= found["values"]["rate"] <= 0.3
    ```
    """
    what = prepare(
        Search(recipe, SearchSpace() if space is None else space, tuner, trials, seeds, prune),
        data_dir,
    )
    workers = natural_int("workers", workers)
    # Told before the first trial, not after the last.
    needed("tensorboard.plugins.hparams.api", "tensorboard", "tune")
    needed("scipy", "SciPy", "tune")
    folder, found = pathlib.Path(out), remote.role()
    if found is not None and "chief" not in found[0]:
        description.check(folder, what)
        work(remote.RemoteQueue(found[1], folder), found[0], what, folder, data_dir, callbacks)
        return {}
    with folder_lock(folder):
        is_concluded = (folder / best.NAME).exists()
        description.claim(folder, what, is_concluded)
        oracle = make_oracle(tuner, what.space, trials, recipe.epochs, recipe.seed, folder)
        queue = TrialQueue(oracle, folder, _teller(what, folder, oracle, verbose))
        if not is_concluded and (found is not None or workers):
            if workers and verbose:
                number = f"{workers} worker{'' if workers == 1 else 's'}"
                print(f"{number}; what they print is in {folder / LOGS}", flush=True)
            address = found[1] if found is not None else "127.0.0.1:0"
            _run_workers(workers, queue, address, data_dir)
        elif not is_concluded:
            work(queue, "tuner0", what, folder, data_dir, callbacks)
        found_best = best.conclude(what, folder, list(oracle.results.values()), data_dir)
        report(folder)
    return found_best


def _run_workers(count: int, queue: TrialQueue, address: str, data_dir: Any) -> None:
    with remote.served(queue, address) as port:
        host = address.rpartition(":")[0]
        processes = Workers(count, queue.folder, host, port, data_dir, queue.heard)
        try:
            remote.wait_for_the_end(queue, processes.watch)
        finally:
            processes.end()


def prepare(search: Search, data_dir: Any = None) -> Search:
    """The search with the hyperparameters that set something, by a network of each order; a bad
    name is told before anything is trained.
    """
    name, counts = search.recipe.data, []
    if search.recipe.is_in_memory:
        images = datasets.SHAPES[name], datasets.CLASSES[name], True
    else:
        dataset = datasets.make_dataset(search.recipe, data_dir)
        images = dataset.shape, dataset.classes, dataset.is_standardized
    for order in search.space.orders:
        config = TrainingConfig(**{**search.recipe.to_dict(), "order": order})
        counts.append(len(ic_layers(network(config, *images))))
    layers = min((count for count in counts if count), default=0)
    return dataclasses.replace(search, space=search.space.for_layers(layers))


def _teller(
    what: Search, folder: pathlib.Path, oracle: Any, verbose: int
) -> Callable[[dict[str, Any]], None]:
    start, before = time.monotonic(), len(oracle.results)
    bar, clear = None, ""
    if verbose and sys.stdout.isatty():
        bar, clear = keras.utils.Progbar(what.trials, unit_name="trial"), "\r\x1b[K"
        bar.update(before)

    def tell(result):
        results = list(oracle.results.values())
        board.write(folder, result)
        if what.tuner != "hyperband":  # which goes on with trials that have ended
            best.forget_others(folder, results)
        if verbose:
            values = ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in result["values"].items()
            )
            each = (time.monotonic() - start) / (len(results) - before)
            left = math.ceil(each * (what.trials - len(results)) / 60)
            print(
                f"{clear}trial {result['trial']}: {values}: {_outcome(result)} ({len(results)} of"
                f" at most {what.trials} done, at most {left} min left)",
                flush=True,
            )
        if bar is not None:
            bar.update(len(results))

    return tell


def _outcome(result: dict[str, Any]) -> str:
    if result["status"] == "FAILED":
        return f"failed, {result['error']}"
    stopped = (
        f", stopped as poor after {result['epochs']} epochs" if result["status"] == "PRUNED" else ""
    )
    return f"{accuracy(result['scores'])} % of the validation images{stopped}"
