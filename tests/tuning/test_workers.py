"""Workers of this machine, in processes of their own, whose trials train nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from keras_ic.training import TrainingConfig, datasets
from keras_ic.tuning import description, oracles, remote, trial, trial_queue, worker, workers
from tests.tuning import quick as quick_run
from tests.tuning.test_searching import RECIPE, SPACE, lines, searched


def wait_for(found, seconds=120):
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow(reason="starts and kills worker processes")
def test_two_workers_one_of_which_is_killed(tmp_path, quick, capfd):
    """They come to what one process comes to, in whatever order."""
    searched(tmp_path / "alone", trials=3)
    killed = []
    real = workers.Workers.watch

    def watch(self, dead):
        if not killed and list(self.folder.glob("trials/*/seed0/record.jsonl")):
            killed.append("worker0")
            self.processes["worker0"].kill()
            self.processes["worker0"].wait()
        real(self, dead)

    quick.setattr(workers.Workers, "watch", watch)
    quick.setenv(quick_run.SECONDS, "0.5")
    found = searched(tmp_path / "shared", trials=3, workers=2)
    shown = capfd.readouterr().out
    assert "worker0 was stopped by a signal; another takes up its trial" in shown
    by_trial = [
        {line["trial"]: line for line in lines(tmp_path / name)} for name in ("alone", "shared")
    ]
    assert by_trial[0] == by_trial[1] and len(by_trial[0]) == 3
    assert found["status"] == "COMPLETED" and (tmp_path / "shared" / "best.keras").exists()


@pytest.mark.slow(reason="waits for a worker that is suspended")
def test_a_suspended_worker_does_not_keep_its_trial(tmp_path, quick):
    """It is killed, and another takes up the trial, which ends once."""
    suspended = []
    real = workers.Workers.watch

    def watch(self, dead):
        if not suspended and list(self.folder.glob("trials/0/seed0/record.jsonl")):
            suspended.append(self.processes["worker0"])
            suspended[0].send_signal(signal.SIGSTOP)
        real(self, dead)

    quick.setattr(workers.Workers, "watch", watch)
    quick.setattr(trial_queue, "LEASE", 8.0)
    quick.setenv(quick_run.SECONDS, "3")
    searched(tmp_path, trials=1, workers=1)
    assert suspended[0].returncode == -signal.SIGKILL
    assert [line["status"] for line in lines(tmp_path)] == ["COMPLETED"]


def program(tmp_path, monkeypatch, script):
    """Has workers run a shell script in place of Python."""
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(workers.sys, "executable", str(path))


def test_a_worker_that_ends_by_itself_ends_the_search_with_its_reason(tmp_path, monkeypatch):
    """It is not taken for one that was killed."""
    program(tmp_path, monkeypatch, "echo starting; echo no images >&2; exit 2")
    with pytest.raises(ValueError, match=r"worker0 stopped: no images \(.*worker0.txt\)"):
        searched(tmp_path / "search", trials=2, workers=1)
    assert not (tmp_path / "search" / "trials.jsonl").exists()


def test_a_worker_that_is_killed_before_its_first_word_ends_the_search(tmp_path, monkeypatch):
    """As for lack of memory, at the import of TensorFlow."""
    program(tmp_path, monkeypatch, "kill -9 $$")
    with pytest.raises(
        ValueError,
        match=r"worker0 was killed 3 times before its first trial.*Received: exit code -9",
    ):
        searched(tmp_path / "search", trials=2, workers=1)


def test_workers_are_renewed_so_that_memory_stays_flat(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, f"echo started >> {tmp_path}/starts; exit {worker.RENEW}")
    started = workers.Workers(1, tmp_path, "127.0.0.1", 9, None, {})
    for count in range(1, 6):
        started.processes["worker0"].wait()
        assert (tmp_path / "starts").read_text() == count * "started\n"
        started.watch([])
    started.end()


@pytest.fixture
def role(tmp_path, quick):
    """The process of a worker of a search of three trials, which this one is."""
    what = description.Search(TrainingConfig(**RECIPE), SPACE, "random", 3, 1, False)
    description.claim(tmp_path, what)
    oracle = oracles.make_oracle("random", SPACE, 3, 2, 0, tmp_path)
    quick.setattr(worker, "_end_with_the_chief", lambda: None)
    with remote.served(trial_queue.TrialQueue(oracle, tmp_path, print), "127.0.0.1:0") as port:
        quick.setenv("KERASTUNER_TUNER_ID", "worker0")
        quick.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        quick.setenv("KERASTUNER_ORACLE_PORT", str(port))
        yield oracle


def test_a_worker_ends_after_its_number_of_trials_and_when_none_is_left(role, tmp_path):
    assert worker.main([str(tmp_path), "2"]) == worker.RENEW and len(role.results) == 2
    assert worker.main([str(tmp_path), "2"]) == 0 and len(role.results) == 3


def test_a_cause_that_all_trials_have_ends_a_worker_in_one_line(role, tmp_path, quick, capsys):
    def run(*arguments, **others):
        raise datasets.MissingDataError("no\nimages")

    quick.setattr(trial.training, "run", run)
    assert worker.main([str(tmp_path), "2"]) == 2
    assert capsys.readouterr().err == "no images\n" and not role.results


def test_workers_end_with_the_one_that_started_them(tmp_path, quick):
    """Which is killed, so that it cannot tell them."""
    code = (
        "import pathlib, sys; from keras_ic.tuning import workers; from tests.tuning.test_searching"
        " import searched; workers.WORKER = 'tests.tuning.quick';"
        " searched(pathlib.Path(sys.argv[1]), trials=1, workers=1)"
    )
    environment = {**os.environ, quick_run.SECONDS: "500"}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    wait_for(lambda: list(tmp_path.glob("trials/*/seed0/record.jsonl")))
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    process.kill()
    process.wait()
    log = tmp_path / "log" / "worker0.txt"
    last = "The chief of the search is gone; give its command again, and the search goes on."
    wait_for(lambda: log.read_text().splitlines()[-1:] == [last])
    assert len(listed.stdout.split()) == 1


def test_those_that_run_are_stopped_with_the_search(tmp_path, quick):
    """As by a signal: none of them is left."""
    processes = []
    real = workers.Workers.watch

    def watch(self, dead):
        real(self, dead)
        if list(self.folder.glob("trials/*/seed0/record.jsonl")):
            processes.extend(self.processes.values())
            raise KeyboardInterrupt

    quick.setattr(workers.Workers, "watch", watch)
    quick.setenv(quick_run.SECONDS, "5")
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, trials=1, workers=1)
    assert [process.returncode for process in processes] == [75]
    assert (tmp_path / remote.SECRET).exists() and not (tmp_path / ".lock").exists()
