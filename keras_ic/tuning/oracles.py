"""Keras Tuner's oracles, which choose the values of the trials, with what they lack to go on after
any stop.

As they are (keras-tuner 1.4.8), a search that is stopped and resumed

- fails in a grid search, whose queue is not saved (keras-tuner#1055);
- comes to other trials in a Bayesian search, whose place in the random numbers is not saved
  (keras-tuner#421);
- writes its state in several files, each in place and one in the middle of a change, so that a kill
  can leave them damaged or a trial both running and ended (keras-tuner#987);
- gives up after three trials in a row that failed (keras-tuner#764).

All else that a search of this package has is in `trial_queue.py` and `remote.py`.
"""

import json
import pathlib
import warnings
from typing import Any

import numpy as np

from keras_ic import saving
from keras_ic.tuning.space import DIGITS, SearchSpace
from keras_ic.utils.json_files import checking_content, read_json
from keras_ic.utils.lazy_imports import keras_tuner

OBJECTIVE = "val_accuracy"
STATE, RESULTS = "oracle.json", "trials.jsonl"
ADVICE = "restore it from a copy, or choose another folder"


class KeptOracle(keras_tuner.Oracle):
    """What is added to an oracle of Keras Tuner: its state is one file, which is always whole.

    Args:
        folder: Path of the folder of the search, which exists. If it holds a state, the oracle goes
            on from there.
        trials: Integer above 0, how many trials at most.
        **kwargs: Arguments of the oracle of Keras Tuner.
    """

    ongoing_trials: dict[str, Any]  # by worker
    _retry_queue: list[str]

    def __init__(self, folder: pathlib.Path, trials: int, **kwargs):
        super().__init__(max_consecutive_failed_trials=2**31, **kwargs)
        self.folder, self.max_trials, self.verbose = folder, trials, 0
        self.results: dict[str, dict[str, Any]] = {}
        if (folder / STATE).exists():
            self._restore()

    def end(self, trial_id: str, result: dict[str, Any]) -> dict[str, Any]:
        """Ends a trial with its result; returns its line of the record."""
        trial = self.trials[trial_id]
        values = trial.hyperparameters.values
        names = sorted(values, key=lambda name: not name.startswith("rate"))  # the rates first
        shown = {
            name: round(values[name], DIGITS) if isinstance(values[name], float) else values[name]
            for name in names
            if not name.startswith("tuner/")
        }
        self.results[trial_id] = {"trial": trial_id, "values": shown, **result}
        trial.status = "FAILED" if result["status"] == "FAILED" else "COMPLETED"
        trial.message = result.get("error")
        if "score" in result:
            self.update_trial(trial_id, {OBJECTIVE: result["score"]}, step=result["epochs"])
        self.end_trial(trial)
        return self.results[trial_id]

    def keep(self) -> None:
        """Writes the state, then the record, each in one step."""
        with saving.replacing(self.folder / STATE) as new:
            new.write_text(json.dumps(self.get_state(), default=float), encoding="utf-8")
        self._write_results()

    def get_state(self):
        """All of it, as JSON has it."""
        trials = [trial.get_state() for trial in self.trials.values()]
        return {**super().get_state(), "trials": trials, "results": self.results}

    def set_state(self, state):
        """Sets what `get_state` gave."""
        trials = [keras_tuner.engine.trial.Trial.from_state(each) for each in state["trials"]]
        self.trials = {trial.trial_id: trial for trial in trials}
        self.results = dict(state["results"])
        super().set_state(state)

    def _restore(self) -> None:
        """Goes on from the file, with the trials that were running first."""
        path = self.folder / STATE
        state = read_json(path, ("trials", "results"), ADVICE)
        with checking_content(path, advice=f"{ADVICE}; or it is of another version of keras-tuner"):
            self.set_state(state)
            # In the order of their beginning; Keras Tuner takes from the end of the queue.
            running = {trial.trial_id for trial in self.ongoing_trials.values()}
            waiting = running | set(self._retry_queue)
            self._retry_queue = sorted(waiting, key=self.start_order.index, reverse=True)
            self.ongoing_trials = {}
        self._write_results()

    def _write_results(self) -> None:
        """Writes `trials.jsonl`, in the order in which the trials ended."""
        lines = [json.dumps(self.results[trial_id]) + "\n" for trial_id in self.end_order]
        with saving.replacing(self.folder / RESULTS) as new:
            new.write_text("".join(lines), encoding="utf-8")

    def save(self):
        """Does nothing: Keras Tuner saves in the middle of a change. `keep` does it after one."""

    def _save_trial(self, trial):
        """Does nothing: the trials are in the state."""


class RandomSearch(KeptOracle, keras_tuner.oracles.RandomSearchOracle):
    """Values at random."""


class Hyperband(KeptOracle, keras_tuner.oracles.HyperbandOracle):
    """Many short trials, the best of which continue."""


class BayesianOptimization(KeptOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Values that a Gaussian process expects to be good."""

    def populate_space(self, trial_id):
        """The values of a new trial, which depend on those before it alone (keras-tuner#421)."""
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        with warnings.catch_warnings():
            # Scikit-learn warns of the bounds of the Gaussian process, which are Keras Tuner's.
            warnings.simplefilter("ignore")
            return super().populate_space(trial_id)


class GridSearch(KeptOracle, keras_tuner.oracles.GridSearchOracle):
    """All combinations of values, one after the other."""

    def populate_space(self, trial_id):
        """The combination after that of the last trial. Keras Tuner's own queue, which is lost at a
        stop (keras-tuner#1055), is for hyperparameters that appear during a search.
        """
        if not self.start_order:
            return {"status": "RUNNING", "values": dict(self.hyperparameters.values)}
        last = self.trials[self.start_order[-1]]
        values = self._get_next_combination(last.hyperparameters.values)
        return {"status": "STOPPED" if values is None else "RUNNING", "values": values}


def make_oracle(
    kind: str, space: SearchSpace, trials: int, epochs: int, seed: int, folder: pathlib.Path
) -> KeptOracle:
    """An oracle that is kept in a folder, and goes on from there if it was.

    Args:
        kind: `"random"`, `"bayesian"`, `"hyperband"` or `"grid"`.
        space: The `SearchSpace` that it chooses from.
        trials: Integer above 0, how many trials at most.
        epochs: Integer above 0, of a whole trial.
        seed: Integer of 0 or more.
        folder: Path of the folder, which exists.
    """
    hp = keras_tuner.HyperParameters()
    space.choose(hp)
    common = {
        "folder": folder,
        "trials": trials,
        "objective": keras_tuner.Objective(OBJECTIVE, "max"),
        "hyperparameters": hp,
        "seed": seed + 1,  # Keras Tuner takes a seed of 0 for none
    }
    if kind == "hyperband":
        return Hyperband(max_epochs=epochs, hyperband_iterations=None, **common)
    classes = {"random": RandomSearch, "bayesian": BayesianOptimization, "grid": GridSearch}
    return classes[kind](**common)
