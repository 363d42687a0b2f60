"""Chief and workers, in processes of their own on this machine."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from keras_ic.training import TrainingConfig
from keras_ic.tuning import SearchSpace, description, remote, search, workers
from keras_ic.tuning.oracles import oracle
from tests.tuning.test_searching import RECIPE, SPACE, lines, searched

pytestmark = pytest.mark.tensorflow_only  # the images come through tf.data
SEARCH = description.Search(TrainingConfig(**RECIPE), SPACE, "random", 3, 1, False)


@pytest.fixture
def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def chief(monkeypatch, free_port):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(free_port))
    return f"127.0.0.1:{free_port}"


def made(folder):
    description.claim(folder, SEARCH)
    return oracle(
        "random", SPACE, 3, 2, 0, folder, lambda trial_id: {"status": "FAILED", "error": "made up"}
    )


def test_two_workers_one_of_which_is_killed(tmp_path, monkeypatch, capfd):
    """They come to what one process comes to, in whatever order."""
    searched(tmp_path / "alone", trials=3)
    killed = []
    real = workers.Workers.watch

    def watch(self):
        if not killed and list(self.folder.glob("trials/*/seed0/record.jsonl")):
            killed.append(
                "worker0" if (self.folder / "log" / "worker0.txt").stat().st_size else "worker1"
            )
            self.processes[killed[0]].kill()
            self.processes[killed[0]].wait()
        real(self)

    monkeypatch.setattr(workers.Workers, "watch", watch)
    found = searched(tmp_path / "shared", trials=3, workers=2)
    assert (
        f"{killed[0]} was stopped by a signal; another takes up its trial" in capfd.readouterr().out
    )
    by_trial = [
        {line["trial"]: line for line in lines(tmp_path / name)} for name in ("alone", "shared")
    ]
    assert by_trial[0] == by_trial[1] and len(by_trial[0]) == 3
    assert found["status"] == "COMPLETED" and (tmp_path / "shared" / "best.keras").exists()


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


def test_workers_are_renewed_so_that_memory_stays_flat(tmp_path, monkeypatch):
    """And come to what one process comes to."""
    started = []
    real = workers.Workers._started

    def start(self, tuner_id, index):
        started.append(tuner_id)
        return real(self, tuner_id, index)

    monkeypatch.setattr(workers, "TRIALS_OF_A_PROCESS", 2)
    monkeypatch.setattr(workers.Workers, "_started", start)
    searched(tmp_path / "renewed", trials=3, epochs=1, workers=1)
    searched(tmp_path / "alone", trials=3, epochs=1)
    assert started == ["worker0"] * 2 and lines(tmp_path / "renewed") == lines(tmp_path / "alone")


def test_workers_end_with_the_one_that_started_them(tmp_path):
    """Which is killed, so that it cannot tell them; the same command goes on at once."""
    command = [
        sys.executable,
        "-m",
        "keras_ic",
        "tune",
        "--data",
        "digits",
        "--model",
        "small",
        "--tuner",
        "random",
        "--trials",
        "1",
    ]
    command += ["--epochs", "500", "--out", str(tmp_path / "search")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("search/trials/*/seed0/checkpoint.keras")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    (child,) = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    process.kill()
    process.wait()
    while (
        os.path.exists(f"/proc/{child}/stat")
        and pathlib.Path(f"/proc/{child}/stat").read_text().split()[2] != "Z"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    log = (tmp_path / "search" / "log" / "worker0.txt").read_text()
    assert (
        log.splitlines()[-1]
        == "The chief of the search is gone; give its command again, and the search goes on."
    )


def test_a_chief_and_a_worker_by_the_environment(tmp_path, chief):
    """As on machines of their own: the same call in each, with Keras Tuner's variables."""
    code = (
        "import sys; from tests.tuning.test_searching import searched; import pathlib;"
        " searched(pathlib.Path(sys.argv[1]), trials=1, epochs=1)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "search")],
            env={**os.environ, "KERASTUNER_TUNER_ID": name},
        )
        for name in ("chief", "worker7")
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert [line["status"] for line in lines(tmp_path / "search")] == ["COMPLETED"]
    assert json.loads((tmp_path / "search" / "best.json").read_text())["test_accuracies"]


def test_a_worker_whose_chief_is_gone_says_so(tmp_path, chief, monkeypatch):
    """While it waits for its first answer, and in the middle of a trial."""
    monkeypatch.setattr(remote, "LEASE", 1.0)
    with pytest.raises(
        ConnectionError, match=rf"The chief of the search does not answer.*Received: '{chief}'"
    ):
        remote.RemoteOracle(chief, tmp_path, patience=1)
    made_oracle = made(tmp_path / "search")
    stopped = threading.Event()

    def serve():
        with remote.served(made_oracle, chief):
            stopped.wait(120)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client = remote.RemoteOracle(chief, tmp_path / "search", patience=4)
        trial = client.create_trial("worker0")
        begun = time.monotonic()
        with client.alive(trial.trial_id) as callback:
            while time.monotonic() - begun < 4:
                callback.on_train_batch_end(0)  # the chief answers: nothing happens
                time.sleep(0.1)
            stopped.set()
            thread.join()
            with pytest.raises(ConnectionError, match="does not answer"):
                while time.monotonic() - begun < 60:
                    callback.on_train_batch_end(0)
                    time.sleep(0.1)
        with pytest.raises(ConnectionError, match="does not answer"):
            client.create_trial("worker0")
    finally:
        stopped.set()
        thread.join()


def test_a_worker_does_not_go_on_beside_another_chief(tmp_path, chief):
    with remote.served(made(tmp_path), chief):
        client = remote.RemoteOracle(chief, tmp_path, patience=2)
        trial = client.create_trial("worker0")
        (tmp_path / remote.CHIEF).write_text("another")
        with (
            client.alive(trial.trial_id) as callback,
            pytest.raises(ConnectionError, match="is another one now"),
        ):
            for _ in range(100):
                callback.on_train_batch_end(0)
                time.sleep(0.1)


def test_an_address_that_is_taken(tmp_path, chief):
    with socket.socket() as server:
        server.bind(("127.0.0.1", int(chief.partition(":")[2])))
        server.listen()
        with pytest.raises(
            OSError, match=rf"Nothing can listen at this address.*Received: '{chief}'"
        ):
            searched(tmp_path / "search")
    assert (
        lines(tmp_path / "search") == []
        if (tmp_path / "search" / "trials.jsonl").exists()
        else True
    )


def test_half_an_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.delenv("KERASTUNER_ORACLE_PORT", raising=False)
    with pytest.raises(
        ValueError, match=r"A parallel search needs all three of .* Received: KERASTUNER_TUNER_ID="
    ):
        search(SEARCH.recipe, tmp_path / "search", SearchSpace(), verbose=0)
    assert not (tmp_path / "search").exists()


def test_a_worker_that_cannot_work_ends_the_search_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "none")
    with pytest.raises(ValueError, match=r"worker0 stopped: .*none.*worker0.txt"):
        searched(tmp_path, workers=1)


def test_a_signal_to_the_one_that_started_them_stops_all(tmp_path):
    arguments = [
        "--data",
        "digits",
        "--model",
        "small",
        "--epochs",
        "500",
        "--trials",
        "2",
        "--workers",
        "2",
        "--tuner",
        "random",
    ]
    command = [
        sys.executable,
        "-m",
        "keras_ic",
        "tune",
        *arguments,
        "--out",
        str(tmp_path / "search"),
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("search/trials/*/seed0/checkpoint.keras"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    assert (
        error.splitlines()[-1]
        == "keras-ic tune: stopped; the same command goes on with the search in"
        f" {tmp_path / 'search'}"
    )
    assert len(children) == 2
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)
