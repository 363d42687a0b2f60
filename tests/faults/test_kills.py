"""Killed with SIGKILL at random moments, again and again: nothing is lost, nothing is half written.
`make faults` kills 200 times.
"""

import json
import multiprocessing
import os
import random
import time

import keras
import numpy as np
import pytest

from keras_ic import saving, training
from tests.faults import jobs

KILLS = int(os.environ.get("IC_KILLS", "4")) // 4  # of each of the four
SEED = int(os.environ.get("IC_SEED", "0"))

pytestmark = [
    pytest.mark.tensorflow_only,
    pytest.mark.skipif(os.name != "posix", reason="needs a fork server"),
]


class Killer:
    """Starts a job in a process of its own, and kills it after some seconds."""

    def __init__(self):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.faults.jobs", "tensorflow"])
        self.random = random.Random(SEED)
        self.kills = 0

    def seconds(self, job, folder):
        """How long the job takes when it is left alone."""
        start = time.perf_counter()
        process = self.context.Process(target=job, args=(folder,))
        process.start()
        process.join(600)
        assert process.exitcode == 0
        return time.perf_counter() - start

    def finishes(self, job, folder, seconds):
        """Whether the job comes to its end before it is killed."""
        process = self.context.Process(target=job, args=(folder,))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        self.kills += process.exitcode != 0
        assert process.exitcode in (0, -9)  # it did not fail of what an earlier kill had left
        return process.exitcode == 0


@pytest.fixture(scope="module")
def killer():
    return Killer()


def kill_often(killer, job, unbroken, tmp_path, check):
    """Kills the job so often, in one folder until it ends and then in another, and checks each
    folder after each kill, and at the end.
    """
    duration = killer.seconds(job, unbroken)
    check(unbroken)
    before, folder = killer.kills, tmp_path / "0"
    folder.mkdir()
    while killer.kills - before < KILLS:
        if killer.finishes(job, folder, killer.random.uniform(0, 1.2 * duration)):
            check(folder, ended=True)
            folder = tmp_path / str(int(folder.name) + 1)
            folder.mkdir()
        else:
            check(folder)
    killer.seconds(job, folder)
    check(folder, ended=True)


def lines(path):
    """The whole lines of a file of JSON lines; what has no end of line was being written."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def without_times(value):
    """The value without what no two runs share."""
    if isinstance(value, dict):
        return {name: without_times(part) for name, part in value.items() if "seconds" not in name}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def assert_same_model(path, other):
    one, two = saving.load_model(path), saving.load_model(other)
    for a, b in zip(
        one.variables + one.optimizer.variables,
        two.variables + two.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


def test_training(killer, tmp_path):
    unbroken = tmp_path / "unbroken"

    def check(folder, ended=False):
        if (folder / "record.jsonl").exists():
            done = without_times(training.read(folder).epochs)
            assert done == without_times(training.read(unbroken).epochs)[: len(done)]
        for name in ("checkpoint.keras", "model.keras"):
            if (folder / name).exists():
                assert int(saving.load_model(folder / name).optimizer.iterations) // 2 <= len(done)
        if ended:
            assert sorted(path.name for path in folder.iterdir()) == ["model.keras", "record.jsonl"]
            assert len(done) == 4
            assert_same_model(folder / "model.keras", unbroken / "model.keras")

    kill_often(killer, jobs.train, unbroken, tmp_path, check)


@pytest.mark.slow(reason="kills a search, whose runs are those of test_training")
def test_tuning(killer, tmp_path):
    pytest.importorskip("keras_tuner")
    pytest.importorskip("tensorboard")
    unbroken = tmp_path / "unbroken"

    def check(folder, ended=False):
        for name in ("search.json", "oracle.json", "best.json"):
            if (folder / name).exists():
                json.loads((folder / name).read_text())
        done = without_times(lines(folder / "trials.jsonl"))
        assert done == without_times(lines(unbroken / "trials.jsonl"))[: len(done)]
        for path in folder.rglob("*.keras"):
            if not path.name.startswith("."):
                saving.load_model(path)
        if ended:
            assert len(done) == 2
            assert without_times(json.loads((folder / "best.json").read_text())) == without_times(
                json.loads((unbroken / "best.json").read_text())
            )
            assert_same_model(folder / "best.keras", unbroken / "best.keras")
            assert not [path.name for path in folder.rglob(".*")]

    kill_often(killer, jobs.tune, unbroken, tmp_path, check)


def test_recalibrating(killer, tmp_path):
    unbroken = tmp_path / "unbroken"
    unbroken.mkdir()
    given = jobs.network().get_weights()

    def equal(one, two):
        return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))

    def check(folder, ended=False):
        path = folder / "model.keras"
        if not path.exists():
            assert not ended
            return
        weights = saving.load_model(path).get_weights()
        changed = saving.load_model(unbroken / "model.keras").get_weights()
        assert equal(weights, changed) or (equal(weights, given) and not ended)
        if ended:
            assert [path.name for path in folder.iterdir()] == ["model.keras"]

    kill_often(killer, jobs.recalibrate, unbroken, tmp_path, check)


def test_saving(killer, tmp_path):
    process = killer.context.Process(target=jobs.save, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 300
    while not (tmp_path / "saved.json").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    for kill in range(max(KILLS, 1)):
        if kill:
            process = killer.context.Process(target=jobs.save, args=(tmp_path,))
            process.start()
            before = (tmp_path / "saved.json").stat().st_mtime_ns
            while (tmp_path / "saved.json").stat().st_mtime_ns == before:
                assert process.is_alive() and time.monotonic() < deadline + 60 * kill
                time.sleep(0.02)
        time.sleep(killer.random.uniform(0, 0.5))
        process.kill()
        process.join()
        assert process.exitcode == -9
        noted = json.loads((tmp_path / "saved.json").read_text())
        found = {
            value
            for weight in saving.load_model(tmp_path / "model.keras").get_weights()
            for value in np.unique(weight)
        }
        assert found in ({float(noted)}, {noted + 1.0})
    assert {path.name for path in tmp_path.iterdir()} <= {
        "model.keras",
        "saved.json",
        ".model.partial.keras",
        ".saved.partial.json",
    }
