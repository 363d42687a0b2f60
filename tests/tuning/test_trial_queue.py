"""Leases, without any training: what workers report is made up."""

import concurrent.futures
import dataclasses

import pytest

from keras_ic import saving
from keras_ic.tuning import SearchSpace, oracles, trial_queue
from keras_ic.tuning.trial_queue import DONE, WAIT, LeaseLostError, TrialQueue

RESULT = {"status": "COMPLETED", "score": 0.5, "epochs": 1}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A queue of two trials, whose clock is `queue.now`."""
    monkeypatch.setattr(trial_queue, "read_result", lambda folder, trial_id: dict(RESULT))
    oracle = oracles.make_oracle("random", SearchSpace(), 2, 1, 0, tmp_path)
    made = TrialQueue(oracle, tmp_path, lambda line: made.told.append(line["trial"]))
    made.now, made.told = 0.0, []
    made.clock = lambda: made.now
    return made


def test_the_trial_of_a_worker_that_died_is_taken_up_by_another(queue):
    dead, alive = queue.next("dead"), queue.next("alive")
    queue.now = trial_queue.LEASE
    queue.beat("alive", alive)
    assert queue.give_up_the_dead() == []
    queue.now += 1
    assert queue.give_up_the_dead() == ["dead"]
    queue.end("alive", alive)
    again = queue.next("alive")
    assert (again.trial, again.values) == (dead.trial, dead.values) and again.token != dead.token
    assert not queue.is_at_its_end()
    queue.end("alive", again)
    assert queue.next("alive") == DONE and queue.is_at_its_end()


def test_a_worker_that_comes_back_is_told_that_its_trial_is_gone(queue):
    """As after Ctrl-Z: whatever it says of the trial is refused, and the trial ends once."""
    late = queue.next("late")
    queue.now = trial_queue.LEASE + 1
    queue.give_up_the_dead()
    for _ in range(2):  # before another has it, and after
        for call in (queue.beat, queue.end):
            with pytest.raises(LeaseLostError, match=r"has gone to another.* Received: trial '0'"):
                call("late", late)
        taken = queue.next("other")
    assert queue.told == [] and queue.error is None
    queue.end("other", taken)
    with pytest.raises(LeaseLostError):
        queue.end("late", late)
    assert queue.told == ["0"]
    assert queue.next("late").trial == "1"  # it goes on with another


def test_a_lease_is_of_one_worker_one_trial_and_one_token(queue):
    one, two = queue.next("one"), queue.next("two")
    for worker, task in (
        ("two", one),
        ("one", two),
        ("one", dataclasses.replace(one, token=two.token)),
        ("one", dataclasses.replace(one, trial="7")),
    ):
        with pytest.raises(LeaseLostError):
            queue.beat(worker, task)
    again = queue.next("one")  # it died, and was started again
    assert again.trial == one.trial
    with pytest.raises(LeaseLostError):
        queue.end("one", one)
    queue.end("one", again)


def test_a_worker_that_has_nothing_left_waits_for_the_others(queue):
    tasks = [queue.next("one"), queue.next("two")]
    assert queue.next("three") == WAIT and not queue.is_at_its_end()
    for worker, task in zip(("one", "two"), tasks, strict=True):
        queue.end(worker, task)
    assert [queue.next(name) for name in ("one", "two", "three")] == [DONE] * 3
    assert queue.is_at_its_end()


def test_an_error_is_known_to_the_chief_and_locks_nothing(queue, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving.os, "fsync", full)
        with (
            concurrent.futures.ThreadPoolExecutor(1) as pool,
            pytest.raises(OSError, match="No space left"),
        ):
            pool.submit(queue.next, "worker0").result()
    assert queue.error.errno == 28
    assert not queue.is_at_its_end() and queue.next("worker0").trial == "0"


def test_a_trial_that_kills_its_workers_fails(queue):
    for _ in range(trial_queue.DEATHS):
        assert queue.next("worker0").trial == "0"  # and it dies, and is started again
    assert queue.next("worker0").trial == "1"
    assert queue.oracle.results["0"]["status"] == "FAILED"
    assert queue.oracle.results["0"]["error"] == "3 workers died of it"


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "x" * 65, "ü", 3, None])
def test_ids_of_workers_are_checked(name):
    with pytest.raises(ValueError, match=r"The id of a worker must be .* Received: "):
        trial_queue.checked_name(name)
