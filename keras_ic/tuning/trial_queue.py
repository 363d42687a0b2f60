"""The trials of a search, handed out to workers under leases.

Keras Tuner's chief (1.4.8) passes over workers that died, whose trials are lost and which it waits
for (keras-tuner#915). It knows no worker from another: one that was suspended while its trial went
to another would go on with it.
"""

import dataclasses
import functools
import pathlib
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from keras_ic.tuning.oracles import KeptOracle
from keras_ic.tuning.trial import read_result

LEASE = 60.0  # seconds without a word after which a worker counts as dead
DEATHS = 3  # of its workers in one search, after which a trial counts as failed
WAIT, DONE = "wait", "done"


class LeaseLostError(ConnectionError):
    """The trial is another worker's now."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A trial for a worker.

    Attributes:
        trial: String, the id of the trial.
        values: Dictionary of the values of its hyperparameters.
        token: String, which each beat and the end of this trial must show. The next worker of the
            trial gets another.
    """

    trial: str
    values: dict[str, Any]
    token: str


def checked_name(worker: Any) -> str:
    """The id of a worker, if it is one: it goes into messages and file names."""
    if isinstance(worker, str) and re.fullmatch(r"\w[\w.-]{0,63}", worker, re.ASCII):
        return worker
    raise ValueError(
        "The id of a worker must be up to 64 letters, digits, dots and dashes. Received:"
        f" {str(worker)[:80]!r}"
    )


def _one_at_a_time(method: Callable) -> Callable:
    """Calls of the threads of a chief one after the other. An error of one is known to the chief,
    too, which ends the search with it.
    """

    @functools.wraps(method)
    def guarded(self, *arguments):
        with self.lock:
            try:
                return method(self, *arguments)
            except LeaseLostError:
                raise
            except Exception as error:
                self.error = error
                raise

    return guarded


class TrialQueue:
    """Hands out the trials that an oracle chooses, and takes their results from their folders.

    Args:
        oracle: A `KeptOracle`.
        folder: Path of the folder of the search.
        tell: Function of the line of the record of each trial that ends.

    Attributes:
        heard: Dictionary, when each worker was last heard of.
        error: The exception that has ended a call, or None.
    """

    def __init__(
        self, oracle: KeptOracle, folder: pathlib.Path, tell: Callable[[dict[str, Any]], None]
    ):
        self.oracle, self.folder, self.tell = oracle, folder, tell
        self.clock: Callable[[], float] = time.monotonic
        self.leases: dict[str, tuple[str, str]] = {}  # worker and token, by trial
        self.heard: dict[str, float] = {}
        self.present: set[str] = set()  # workers that are yet to be told that nothing is left
        self.handed_out: dict[str, int] = {}  # by trial, how often
        self.lock = threading.RLock()
        self.error: Exception | None = None

    @_one_at_a_time
    def next(self, worker: str) -> Task | str:
        """The next trial of a worker, or the one that it had, if it died meanwhile; `WAIT` while
        the others' trials have to end first, `DONE` if nothing is left.
        """
        self.heard[worker] = self.clock()
        self.present.add(worker)
        trial = self.oracle.create_trial(worker)
        if trial.status == "RUNNING":
            count = self.handed_out.get(trial.trial_id, 0) + 1
            self.handed_out[trial.trial_id] = count
            if count > DEATHS:
                self._end(
                    trial.trial_id, {"status": "FAILED", "error": f"{DEATHS} workers died of it"}
                )
                return self.next(worker)
            self.oracle.keep()
            task = Task(trial.trial_id, dict(trial.hyperparameters.values), secrets.token_hex(16))
            self.leases[task.trial] = worker, task.token
            self.heard[worker] = self.clock()  # a Bayesian oracle may have thought for long
            return task
        # Should another worker die, its trial will be left to be done.
        if trial.status == "IDLE" or self.oracle.ongoing_trials:
            return WAIT
        self.present.discard(worker)
        return DONE

    def beat(self, worker: str, task: Task) -> None:
        """Takes a sign of life, without waiting for the calls of others; a `LeaseLostError` if the
        trial is not this worker's, or not any more.
        """
        if self.leases.get(task.trial) != (worker, task.token):
            raise LeaseLostError(
                "This trial has gone to another worker, since this one was not heard of for"
                f" {LEASE:g} seconds, or the chief is another one now. Received: trial"
                f" {task.trial!r} of worker {worker!r}"
            )
        self.heard[worker] = self.clock()

    @_one_at_a_time
    def end(self, worker: str, task: Task) -> None:
        """Takes a trial's result from its folder, where the worker has left it, into the state and
        the record.
        """
        self.beat(worker, task)
        self._end(task.trial, read_result(self.folder, task.trial))

    def _end(self, trial_id: str, result: dict[str, Any]) -> None:
        self.leases.pop(trial_id, None)
        line = self.oracle.end(trial_id, result)
        self.oracle.keep()
        self.tell(line)

    @_one_at_a_time
    def give_up_the_dead(self) -> list[str]:
        """Has the trials of workers that have not been heard of for `LEASE` seconds taken up by
        others; returns the ids of those workers.
        """
        dead = [name for name in self.present if self.clock() - self.heard[name] > LEASE]
        for worker in dead:
            trial = self.oracle.ongoing_trials.pop(worker, None)
            if trial is not None:
                self.leases.pop(trial.trial_id, None)
                self.oracle._retry_queue.append(trial.trial_id)
            self.present.discard(worker)
            self.oracle.keep()
        return dead

    @_one_at_a_time
    def is_at_its_end(self) -> bool:
        """Whether every worker has been told that there is nothing left, or is dead."""
        left = self.present or self.oracle.ongoing_trials or self.oracle._retry_queue
        return bool(self.heard) and not left
