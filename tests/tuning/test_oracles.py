"""The oracles without any training: a made-up score in place of each trial's."""

import concurrent.futures
import json

import pytest

from keras_ic import saving
from keras_ic.tuning import SearchSpace, oracles

SPACE = SearchSpace(orders=("usual", "ic"), schedules=("steps", "cosine"))
KINDS = ["random", "bayesian", "hyperband", "grid", "optuna"]


@pytest.fixture(autouse=True)
def few_initial_points(monkeypatch):
    """So that the Gaussian process has its say in a search of few trials."""
    real = oracles.KINDS["bayesian"]

    def bayesian():
        class Impatient(real()):
            def __init__(self, **kwargs):
                super().__init__(num_initial_points=2, **kwargs)

        return Impatient

    monkeypatch.setitem(oracles.KINDS, "bayesian", bayesian)


def made(folder, kind="random", trials=10, seed=0):
    if kind == "optuna":
        pytest.importorskip("optuna", reason="needs optuna")

    def result(trial_id):
        values = oracle.get_trial(trial_id).hyperparameters.values
        return {
            "status": "COMPLETED",
            "score": 1 / (1 + values.get("rate", 0.3)) - values["learning_rate"],
            "epochs": 4,
        }

    oracle = oracles.oracle(kind, SPACE, trials, 4, seed, folder, result)
    return oracle


def step(oracle, worker="tuner0"):
    """Runs one trial; its values, or None at the end."""
    trial = oracle.create_trial(worker)
    if trial.status == "STOPPED":
        return None
    oracle.end_trial(trial)
    return trial.hyperparameters.values


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_is_stopped_anywhere_comes_to_the_same_trials(tmp_path, kind):
    (tmp_path / "through").mkdir()
    (tmp_path / "broken").mkdir()
    trials = 4 if kind == "bayesian" else 10  # its Gaussian process takes its time
    through = made(tmp_path / "through", kind, trials)
    values = [step(through) for _ in range(trials)]
    assert step(through) is None and len({json.dumps(each) for each in values}) > trials // 2 - 1
    broken = []
    for index in range(trials):
        oracle = made(tmp_path / "broken", kind, trials)
        if index % 2:
            # And the process is gone.
            started = oracle.create_trial("tuner0").hyperparameters.values
            oracle = made(tmp_path / "broken", kind, trials)
            assert oracle.create_trial("tuner0").hyperparameters.values == started
        broken.append(step(oracle))
    assert broken == values
    assert step(made(tmp_path / "broken", kind, trials)) is None
    names = [(tmp_path / name / "trials.jsonl").read_text() for name in ("through", "broken")]
    assert names[0] == names[1] and names[0].count("\n") == trials


def test_other_seeds_search_elsewhere(tmp_path):
    values = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        values.append(step(made(tmp_path / str(seed), seed=seed)))
    assert values[0] != values[1]


def test_a_stop_while_the_state_is_written_loses_nothing(tmp_path, monkeypatch):
    oracle = made(tmp_path)
    step(oracle)
    before = (tmp_path / "oracle.json").read_bytes(), (tmp_path / "trials.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(saving.os, "replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            oracle.create_trial("tuner0")
    assert (
        (tmp_path / "oracle.json").read_bytes(),
        (tmp_path / "trials.jsonl").read_bytes(),
    ) == before
    assert step(made(tmp_path)) is not None


def test_the_record_is_made_good_after_a_stop_between_the_two_files(tmp_path):
    oracle = made(tmp_path)
    step(oracle)
    step(oracle)
    path = tmp_path / "trials.jsonl"
    whole = path.read_text()
    path.write_text(whole.splitlines(keepends=True)[0])
    made(tmp_path)
    assert path.read_text() == whole


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trials": []}', '{"trials": 3, "results": {}}'])
def test_a_damaged_state_is_refused(tmp_path, text):
    path = tmp_path / "oracle.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"The state of this search is damaged.*Received: '.*oracle.json'"
    ):
        made(tmp_path)
    assert path.read_text() == text


def test_failures_do_not_end_a_search(tmp_path):
    oracle = made(tmp_path, trials=6)
    oracle.result = lambda trial_id: {"status": "FAILED", "error": "broken"}
    for _ in range(6):
        oracle.end_trial(oracle.create_trial("tuner0"))
    assert oracle.create_trial("tuner0").status == "STOPPED"
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["FAILED"] * 6 and [
        line["trial"] for line in lines
    ] == [str(number) for number in range(6)]


def test_the_trial_of_a_worker_that_died_is_taken_up_by_another(tmp_path):
    now = [0.0]
    oracle = made(tmp_path, trials=2)
    oracle.clock = lambda: now[0]
    dead = oracle.create_trial("dead")
    alive = oracle.create_trial("alive")
    now[0] = oracles.LEASE
    oracle.get_trial(alive.trial_id)  # a sign of life
    oracle.give_up_the_dead()
    now[0] += 1
    oracle.give_up_the_dead()
    assert set(oracle.ongoing_trials) == {"alive"}
    oracle.end_trial(alive)
    again = oracle.create_trial("alive")
    assert (again.trial_id, again.status, again.hyperparameters.values) == (
        dead.trial_id,
        "RUNNING",
        dead.hyperparameters.values,
    )
    assert not oracle.is_at_its_end()
    oracle.end_trial(again)
    assert oracle.create_trial("alive").status == "STOPPED" and oracle.is_at_its_end()


def test_a_worker_that_has_nothing_left_waits_for_the_others(tmp_path):
    oracle = made(tmp_path, trials=1)
    trial = oracle.create_trial("one")
    assert oracle.create_trial("two").status == "IDLE" and not oracle.is_at_its_end()
    oracle.end_trial(trial)
    assert [oracle.create_trial(name).status for name in ("two", "one")] == [
        "STOPPED"
    ] * 2 and oracle.is_at_its_end()


def test_an_error_is_known_to_the_chief_and_locks_nothing(tmp_path, monkeypatch):
    oracle = made(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            saving.os,
            "fsync",
            lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")),
        )
        with (
            concurrent.futures.ThreadPoolExecutor(1) as pool,
            pytest.raises(OSError, match="No space left"),
        ):
            pool.submit(oracle.create_trial, "worker0").result()
    assert oracle.error.errno == 28
    assert not oracle.is_at_its_end() and oracle.create_trial("worker0").status == "RUNNING"


def test_a_trial_that_kills_its_workers_fails(tmp_path):
    oracle = made(tmp_path, trials=2)
    for _ in range(oracles.DEATHS):
        assert oracle.create_trial("worker0").trial_id == "0"  # and it dies, and is started again
    assert oracle.create_trial("worker0").trial_id == "1"
    assert (
        oracle.results["0"]["status"] == "FAILED"
        and oracle.results["0"]["error"] == "3 workers died of it"
    )
