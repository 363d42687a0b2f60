"""Workers of this machine, in processes of their own, whose trials train nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from keras_ic.tuning import remote, trial_queue, workers
from tests.tuning import quick as quick_run
from tests.tuning.test_searching import lines, searched


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


def test_a_cause_that_all_trials_have_ends_the_search_with_it(tmp_path, monkeypatch):
    """A worker that ends by itself, with exit code 2, is not taken for one that was killed."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"worker0 stopped: .*cifar10.*worker0.txt"):
        searched(tmp_path / "search", data="cifar10", trials=2, workers=1, data_dir=tmp_path)
    assert lines(tmp_path / "search") == []


def test_a_worker_that_is_killed_before_its_first_word_ends_the_search(tmp_path, monkeypatch):
    """As for want of memory, at the import of TensorFlow."""
    script = tmp_path / "killed"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(workers.sys, "executable", str(script))
    with pytest.raises(
        ValueError,
        match=r"worker0 was killed 3 times before its first trial.*Received: exit code -9",
    ):
        searched(tmp_path / "search", trials=2, workers=1)


def test_workers_are_renewed_so_that_memory_stays_flat(tmp_path, quick):
    started = []
    real = workers.Workers._started

    def start(self, tuner_id, index):
        started.append(tuner_id)
        return real(self, tuner_id, index)

    quick.setattr(workers, "TRIALS_OF_A_PROCESS", 2)
    quick.setattr(workers.Workers, "_started", start)
    searched(tmp_path, trials=3, epochs=1, workers=1)
    assert started == ["worker0"] * 2 and len(lines(tmp_path)) == 3


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


def test_a_worker_that_cannot_work_ends_the_search_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "none")
    with pytest.raises(ValueError, match=r"worker0 stopped: .*none.*worker0.txt"):
        searched(tmp_path, workers=1)


def test_those_that_run_are_stopped_with_the_search(tmp_path, quick):
    """As by a signal: none of them is left."""
    processes = []
    real = workers.Workers.watch

    def watch(self, dead):
        real(self, dead)
        if len(list(self.folder.glob("trials/*/seed0/record.jsonl"))) == 2:
            processes.extend(self.processes.values())
            raise KeyboardInterrupt

    quick.setattr(workers.Workers, "watch", watch)
    quick.setenv(quick_run.SECONDS, "5")
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, trials=2, workers=2)
    assert [process.returncode for process in processes] == [75, 75]
    assert (tmp_path / remote.SECRET).exists() and not (tmp_path / ".lock").exists()
