"""The service of a chief, and what strangers can do to it: nothing."""

import http.client
import json
import socket
import threading
import time

import pytest

from keras_ic.training import TrainingConfig
from keras_ic.tuning import SearchSpace, oracles, remote, search, trial_queue
from keras_ic.tuning.remote import ChiefLostError, LeaseKeeper, RemoteQueue
from keras_ic.tuning.trial_queue import DONE, WAIT, LeaseLostError, Task, TrialQueue
from tests.tuning.test_searching import RECIPE, searched

RESULT = {"status": "COMPLETED", "score": 0.5, "epochs": 1}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_queue, "read_result", lambda folder, trial_id: dict(RESULT))
    oracle = oracles.make_oracle("random", SearchSpace(), 2, 1, 0, tmp_path)
    return TrialQueue(oracle, tmp_path, lambda line: None)


@pytest.fixture
def chief(queue):
    """The address of a chief."""
    with remote.served(queue, "127.0.0.1:0") as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_a_worker_gets_its_trials_and_reports_them(queue, chief, tmp_path):
    client = RemoteQueue(chief, tmp_path)
    first = client.next("one")
    assert queue.oracle.trials[first.trial].hyperparameters.values == first.values
    client.beat("one", first)
    client.end("one", first)
    second = client.next("two")
    assert (first.trial, second.trial, client.next("one")) == ("0", "1", WAIT)
    client.end("two", second)
    assert client.next("one") == client.next("two") == DONE
    remote.wait_for_the_end(queue)
    assert set(queue.oracle.results) == {"0", "1"}


def test_a_late_worker_is_told_by_the_chief(queue, chief, tmp_path):
    client = RemoteQueue(chief, tmp_path)
    late = client.next("late")
    queue.clock = lambda: time.monotonic() + trial_queue.LEASE + 1
    assert queue.give_up_the_dead() == ["late"]
    for call in (client.beat, client.end):
        with pytest.raises(LeaseLostError, match="has gone to another worker"):
            call("late", late)
    assert queue.error is None and not queue.oracle.results


def test_the_secret_is_its_owners_alone(queue, chief, tmp_path):
    path = tmp_path / "secret"
    assert path.stat().st_mode & 0o777 == 0o600 and len(path.read_text()) == 64
    before = path.read_text()
    path.chmod(0o644)
    remote.make_secret(tmp_path)  # that of another chief
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() != before


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"call": "next", "worker": "x"}', {}, 403),
        (b'{"call": "next", "worker": "x"}', {"X-Signature": "0" * 64}, 403),
        (b'{"call": "next", "worker": "x"}', {"X-Signature": "\u00e9"}, 403),
        (b"", {}, 403),
        (b"", {"Content-Length": str(remote.LONGEST + 1)}, 413),
        (b"", {"Content-Length": "-1"}, 413),
    ],
)
def test_what_is_not_signed_changes_nothing(queue, chief, body, headers, status):
    host, _, port = chief.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("POST", "/", body, headers)
    assert connection.getresponse().status == status
    connection.close()
    assert not queue.heard and not queue.oracle.trials and queue.error is None


@pytest.mark.parametrize(
    "message",
    [
        3,
        {},
        {"call": "next", "worker": "../../etc"},
        {"call": "next"},
        {"call": "give_up_the_dead", "worker": "one"},
        {"call": "end", "worker": "one", "task": {"trial": "../0", "values": {}, "token": ""}},
        {"call": "end", "worker": "one", "task": {"trial": ["0"], "values": {}, "token": ""}},
        {"call": "end", "worker": "one", "task": {}},
        {"call": "beat", "worker": "one", "task": 3},
    ],
)
def test_a_wrong_message_changes_nothing(queue, chief, tmp_path, message):
    with pytest.raises(ChiefLostError, match="has failed"):
        RemoteQueue(chief, tmp_path)._ask(message, 20)
    assert not queue.heard and not queue.oracle.trials and queue.error is None


def test_a_worker_believes_its_chief_alone(queue, chief, tmp_path, monkeypatch):
    """What answers at the address does not know the secret, or sends a path for an id."""
    client = RemoteQueue(chief, tmp_path, patience=0.1)
    monkeypatch.setattr(queue, "next", lambda worker: Task("../up", {}, ""))
    with pytest.raises(ValueError, match=r"The id of a trial must be digits. Received: '../up'"):
        client.next("one")
    monkeypatch.setattr(remote, "_is_signed", lambda folder, body, sign: body[:8] == b'{"call":')
    with pytest.raises(ChiefLostError, match="the answer is not signed"):
        client.next("one")


def test_a_chief_that_is_gone_and_one_that_has_not_begun(queue, tmp_path, free_port):
    with pytest.raises(ChiefLostError, match=r"The chief of the search has not begun.*Received: "):
        RemoteQueue(f"127.0.0.1:{free_port}", tmp_path, patience=0.1).next("one")
    with remote.served(queue, f"127.0.0.1:{free_port}") as port:
        client = RemoteQueue(f"127.0.0.1:{port}", tmp_path, patience=0.5)
        task = client.next("one")
    with pytest.raises(ChiefLostError, match=r"does not answer.*Received: '127.0.0.1:"):
        client.beat("one", task)
    with LeaseKeeper(client, "one", task, every=0.05) as lease:
        deadline = time.monotonic() + 60
        while lease.problem is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(ChiefLostError, match="does not answer"):
            lease.on_train_batch_end(0)


class Told:
    """A queue that says that a lease is lost from some call on."""

    def __init__(self, calls):
        self.calls = calls

    def beat(self, worker, task):
        self.calls -= 1
        if self.calls < 0:
            raise LeaseLostError("lost")


def test_a_lost_lease_stops_the_training_before_it_writes():
    """Of a process that was suspended, whose beats have not noticed it yet."""
    with LeaseKeeper(Told(1), "one", Task("0", {}, ""), every=1000) as lease:
        lease.on_train_batch_end(0)  # the last answer is new: nothing is asked
        lease.on_epoch_end(0)
        with pytest.raises(LeaseLostError):
            lease.on_epoch_end(1)
        lease.heard -= 3001
        with pytest.raises(LeaseLostError):
            lease.on_train_batch_end(0)


def test_a_stranger_that_says_nothing_does_not_hold_others_up(chief, tmp_path):
    host, _, port = chief.partition(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.send(b"POST / HTTP/1.1\r\n")
        assert RemoteQueue(chief, tmp_path).next("one").trial == "0"


def test_an_error_of_the_chief_ends_the_search(queue, chief, tmp_path, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queue.oracle, "keep", full)
    with pytest.raises(ChiefLostError, match="No space left on device"):
        RemoteQueue(chief, tmp_path).next("one")
    with pytest.raises(OSError, match="No space left on device"):
        remote.wait_for_the_end(queue)


def _environment(monkeypatch, name, port):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))


def test_an_address_that_is_taken(tmp_path, monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        _environment(monkeypatch, "chief", server.getsockname()[1])
        with pytest.raises(OSError, match=r"Nothing can listen at this address .*Received: '127"):
            searched(tmp_path / "search")


@pytest.mark.parametrize(
    ("name", "port", "message"),
    [
        ("worker", "", "A parallel search needs all three of .* Received: KERASTUNER_TUNER_ID="),
        ("../worker", "8000", "The id of a worker must be"),
        ("chief", "http", "The port must be a number below 65536. Received: '127.0.0.1:http'"),
    ],
)
def test_a_bad_environment(tmp_path, monkeypatch, name, port, message):
    _environment(monkeypatch, name, port)
    with pytest.raises(ValueError, match=message):
        search(TrainingConfig(**RECIPE), tmp_path / "search", SearchSpace(), verbose=0)


def test_a_chief_and_a_worker_by_the_environment(tmp_path, quick, free_port):
    """As on machines of their own: the same call in each, with Keras Tuner's variables."""
    folder = tmp_path / "search"
    _environment(quick, "chief", free_port)
    found = []
    chief = threading.Thread(target=lambda: found.append(searched(folder, trials=2, epochs=1)))
    chief.start()
    deadline = time.monotonic() + 60
    while not (folder / "secret").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    _environment(quick, "worker7", free_port)
    assert searched(folder, trials=2, epochs=1) == {}
    chief.join()
    assert found[0]["status"] == "COMPLETED"
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert {line["trial"] for line in lines} == {"0", "1"}
