"""The oracles without any training: a made-up score in place of each trial's."""

import json

import numpy as np
import pytest

from keras_ic import saving
from keras_ic.tuning import SearchSpace, oracles

SPACE = SearchSpace(orders=("conv-bn-relu", "ic"), schedules=("steps", "cosine"))
KINDS = ["random", "bayesian", "hyperband", "grid"]


@pytest.fixture(autouse=True)
def few_initial_points(monkeypatch):
    """So that the Gaussian process has its say in a search of few trials."""
    real = oracles.BayesianOptimization.__init__
    monkeypatch.setattr(
        oracles.BayesianOptimization,
        "__init__",
        lambda self, **kwargs: real(self, num_initial_points=2, **kwargs),
    )


def made(folder, kind="random", trials=10, seed=0):
    return oracles.make_oracle(kind, SPACE, trials, 4, seed, folder)


def started(oracle):
    trial = oracle.create_trial("tuner0")
    oracle.keep()
    return trial


def step(oracle):
    """Runs one trial; its values, or None at the end."""
    trial = started(oracle)
    if trial.status == "STOPPED":
        return None
    values = trial.hyperparameters.values
    score = 1 / (1 + values.get("rate", 0.3)) - values["learning_rate"]
    oracle.end(trial.trial_id, {"status": "COMPLETED", "score": score, "epochs": 4})
    oracle.keep()
    return values


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
            values_before = started(oracle).hyperparameters.values
            oracle = made(tmp_path / "broken", kind, trials)
            assert started(oracle).hyperparameters.values == values_before
        broken.append(step(oracle))
    assert broken == values
    assert step(made(tmp_path / "broken", kind, trials)) is None
    names = [(tmp_path / name / "trials.jsonl").read_text() for name in ("through", "broken")]
    assert names[0] == names[1] and names[0].count("\n") == trials


def test_a_grid_has_every_combination_once(tmp_path):
    space = SearchSpace(
        orders=("conv-bn-relu", "ic"),
        rate=(0, 0.05),
        depths=("uniform", "linear"),
        rate_schedules="constant",
        learning_rate=0.01,
        schedules="cosine",
    )
    oracle = oracles.make_oracle("grid", space, 100, 4, 0, tmp_path)
    found = []
    while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
        found.append(json.dumps(trial.hyperparameters.values, sort_keys=True))
        oracle.end(trial.trial_id, {"status": "FAILED", "error": "made up"})
    assert len(found) == len(set(found)) == 1 + 3 + 9


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
            started(oracle)
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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"trials": []}',
        '{"trials": 3, "results": {}}',
        '{"trials": [{}], "results": {}}',
    ],
)
def test_a_damaged_state_is_refused(tmp_path, text):
    path = tmp_path / "oracle.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"This file is damaged.*Received: '.*oracle.json'$"):
        made(tmp_path)
    assert path.read_text() == text


def test_failures_do_not_end_a_search(tmp_path):
    oracle = made(tmp_path, trials=6)
    for _ in range(6):
        oracle.end(started(oracle).trial_id, {"status": "FAILED", "error": "broken"})
    oracle.keep()
    assert started(oracle).status == "STOPPED"
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["FAILED"] * 6
    assert [line["trial"] for line in lines] == [str(number) for number in range(6)]


def test_the_rates_come_first_in_a_line(tmp_path):
    oracle = made(tmp_path)
    while "rate_depth" not in step(oracle):
        pass
    line = json.loads((tmp_path / "trials.jsonl").read_text().splitlines()[-1])
    names = list(line["values"])
    is_rate = [name.startswith("rate") for name in names]
    assert is_rate == sorted(is_rate, reverse=True) and not is_rate[-1]
    assert not np.isnan(line["score"])
