"""Keras Tuner's oracles, kept in one file that is always whole, and with what they lack to go on
after any stop.

As they are (keras-tuner 1.4.8), they write their state in several files in place, lose the queue of
a grid search (keras-tuner#1055) and the place in the random numbers of the Bayesian one, pass by
the parallel workers that died, and give up after three failures in a row.
"""

import functools
import json
import pathlib
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_ic import saving
from keras_ic.tuning.space import DIGITS, SearchSpace
from keras_ic.utils.lazy_imports import needed

keras_tuner: Any = needed("keras_tuner", "keras-tuner", "tune")

OBJECTIVE = "val_accuracy"
STATE, RESULTS = "oracle.json", "trials.jsonl"
LEASE = 60.0  # seconds without a word after which a worker counts as dead
DEATHS = 3  # of its workers in one search, after which a trial counts as failed
GRID = ("_memory", "_data_to_index", "_last_index")


def _one_at_a_time(method: Callable) -> Callable:
    """Calls of the threads of a chief one after the other. Keras Tuner's own lock stays locked
    after an error, which would go unnoticed.
    """

    @functools.wraps(method)
    def guarded(self, *arguments):
        with self.lock:
            try:
                return method(self, *arguments)
            # Raised on here, in a thread of the server, and again by `wait_for_the_end`.
            except Exception as error:
                self.error = error
                raise

    return guarded


class _Kept(keras_tuner.Oracle):
    """What is added to an oracle; its attributes are set by `oracle`."""

    folder: pathlib.Path
    result: Callable[[str], dict[str, Any]]
    clock: Callable[[], float]
    results: dict[str, dict[str, Any]]
    heard: dict[str, float]  # by worker, when
    handed_out: dict[str, int]  # by trial, how often
    is_in_change: bool
    tell: Callable[[dict[str, Any]], None]  # what is to be known of a trial that has ended
    lock: threading.RLock
    error: Exception | None  # what has ended a call of a worker's
    ongoing_trials: dict[str, Any]
    _retry_queue: list[str]

    @_one_at_a_time
    def create_trial(self, tuner_id):
        """The next trial of a worker, or the one that it had, if it died meanwhile."""
        self.heard[tuner_id] = self.clock()
        self.is_in_change = True
        trial = super().create_trial(tuner_id)
        if trial.status == "RUNNING":
            self.handed_out[trial.trial_id] = self.handed_out.get(trial.trial_id, 0) + 1
            if self.handed_out[trial.trial_id] > DEATHS:
                self._end(trial, {"status": "FAILED", "error": f"{DEATHS} workers died of it"})
                return self.create_trial(tuner_id)
        elif trial.status == "STOPPED" and self.ongoing_trials:
            # Should another worker die, its trial will be left to be done.
            self.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        self.is_in_change = False
        if trial.status == "RUNNING":
            self.save()
        return trial

    def get_trial(self, trial_id):
        """A trial; its worker asks for it as a sign of life."""
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self.heard[tuner_id] = self.clock()
        return super().get_trial(trial_id)

    @_one_at_a_time
    def end_trial(self, trial):
        """Takes a trial's result from its folder, where the worker has left it, into the state and
        the record.
        """
        self._end(trial, self.result(trial.trial_id))

    def _end(self, trial, result):
        values = self.trials[trial.trial_id].hyperparameters.values
        shown = {
            name: round(value, DIGITS) if isinstance(value, float) else value
            for name, value in values.items()
            if not name.startswith("tuner/")
        }
        self.results[trial.trial_id] = {"trial": trial.trial_id, "values": shown, **result}
        trial.status = "FAILED" if result["status"] == "FAILED" else "COMPLETED"
        trial.message = result.get("error")
        self.is_in_change = True
        if "score" in result:
            self.update_trial(trial.trial_id, {OBJECTIVE: result["score"]}, step=result["epochs"])
        super().end_trial(trial)
        self.is_in_change = False
        self.save()
        self.tell(self.results[trial.trial_id])

    @_one_at_a_time
    def give_up_the_dead(self):
        """Has the trials of workers that have not been heard of for `LEASE` seconds taken up by
        others.
        """
        for tuner_id in [
            name for name in self.tuner_ids if self.clock() - self.heard.get(name, 0) > LEASE
        ]:
            trial = self.ongoing_trials.pop(tuner_id, None)
            if trial is not None:
                self._retry_queue.append(trial.trial_id)
            self.tuner_ids.discard(tuner_id)
            self.save()

    @_one_at_a_time
    def is_at_its_end(self):
        """Whether every worker has been told that there is nothing left, or is dead."""
        return (
            bool(self.heard)
            and not self.tuner_ids
            and not self.ongoing_trials
            and not self._retry_queue
        )

    def populate_space(self, trial_id):
        """The values of a new trial, which depend on those before it alone."""
        if hasattr(self, "_random_state"):
            self._random_state = np.random.RandomState(self.seed + len(self.trials))
        with warnings.catch_warnings():
            # Scikit-learn warns of the bounds of the Gaussian process, which are Keras Tuner's.
            warnings.simplefilter("ignore")
            return super().populate_space(trial_id)

    def get_state(self):
        """All of it, as JSON has it."""
        state = {
            **super().get_state(),
            "trials": [trial.get_state() for trial in self.trials.values()],
            "results": self.results,
        }
        if hasattr(self, "_ordered_ids"):
            # JSON would make strings of these keys.
            following = list(self._ordered_ids._next_index.items())
            state["grid"] = {
                "next": self._populate_next,
                "following": following,
                **{name: getattr(self._ordered_ids, name) for name in GRID},
            }
        return state

    def set_state(self, state):
        """Sets what `get_state` gave."""
        trials = [keras_tuner.engine.trial.Trial.from_state(each) for each in state["trials"]]
        self.trials = {trial.trial_id: trial for trial in trials}
        self.results = dict(state["results"])
        super().set_state(state)
        if "grid" in state:
            self._populate_next = state["grid"]["next"]
            self._ordered_ids._next_index.update(state["grid"]["following"])
            for name in GRID:
                setattr(self._ordered_ids, name, state["grid"][name])

    def save(self):
        """Writes the state, then the record, each in one step; nothing amid a change."""
        if self.is_in_change:
            return
        with saving.replacing(self.folder / STATE) as new:
            new.write_text(json.dumps(self.get_state(), default=float), encoding="utf-8")
        self.write_results()

    def write_results(self):
        """Writes `trials.jsonl`, in the order in which the trials ended."""
        lines = [
            json.dumps(self.results[trial_id]) + "\n" for trial_id in dict.fromkeys(self.end_order)
        ]
        with saving.replacing(self.folder / RESULTS) as new:
            new.write_text("".join(lines), encoding="utf-8")

    def reload(self):
        """Goes on from the file, with the trials that were running first."""
        path = self.folder / STATE
        try:
            self.set_state(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = (
                "The state of this search is damaged, or of another version of keras-tuner"
                f" ({type(error).__name__}: {error})"
            )
            raise ValueError(
                f"{what}; restore it from a copy, or choose another folder. Received: {str(path)!r}"
            ) from None
        # In the order of their beginning; the queue is emptied from its end.
        running = {trial.trial_id for trial in self.ongoing_trials.values()} | set(
            self._retry_queue
        )
        self._retry_queue = sorted(running, key=self.start_order.index, reverse=True)
        self.ongoing_trials = {}
        self.write_results()

    def _save_trial(self, trial):
        """Nothing: the trials are in the state."""


def oracle(
    kind: str,
    space: SearchSpace,
    trials: int,
    epochs: int,
    seed: int,
    folder: pathlib.Path,
    result: Callable[[str], dict[str, Any]],
) -> Any:
    """An oracle that is kept in a folder, and goes on from there if it was.

    Args:
        kind: A key of `KINDS`.
        space: What it chooses from.
        trials: Integer above 0, how many trials at most.
        epochs: Integer above 0, of a whole trial.
        seed: Integer of 0 or more.
        folder: Path of the folder, which exists.
        result: Function of the id of a trial that has ended, which gives what its worker has left
            of it: `status`, `score` and others.
    """
    hp = keras_tuner.HyperParameters()
    space.choose(hp)
    # Keras Tuner takes a seed of 0 for none.
    common = {
        "objective": keras_tuner.Objective(OBJECTIVE, "max"),
        "hyperparameters": hp,
        "seed": seed + 1,
        "max_consecutive_failed_trials": 2**31,
    }
    base = KINDS[kind]()
    made = type(f"Kept{base.__name__}", (_Kept, base), {})(
        **common,
        **({"max_epochs": epochs, "hyperband_iterations": None} if kind == "hyperband" else {}),
    )
    made.max_trials = trials
    made.verbose = 0
    made.folder, made.result, made.clock = folder, result, time.monotonic
    made.results, made.heard, made.handed_out, made.is_in_change = {}, {}, {}, False
    made.tell, made.lock, made.error = lambda result: None, threading.RLock(), None
    if (folder / STATE).exists():
        made.reload()
    return made


def _optuna():
    from keras_ic.tuning.optuna_oracle import OptunaOracle

    return OptunaOracle


KINDS: dict[str, Callable[[], type]] = {
    "random": lambda: keras_tuner.oracles.RandomSearchOracle,
    "bayesian": lambda: keras_tuner.oracles.BayesianOptimizationOracle,
    "hyperband": lambda: keras_tuner.oracles.HyperbandOracle,
    "grid": lambda: keras_tuner.oracles.GridSearchOracle,
    "optuna": _optuna,
}
