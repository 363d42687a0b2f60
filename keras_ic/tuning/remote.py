"""The trials of a search for workers in other processes: a small HTTP service, whose every message
is signed with a secret of the search.

Keras Tuner's own service (1.4.8) takes messages of anybody who reaches its port, has no leases, and
can leave its workers waiting for ever for a chief that is gone (keras-tuner#915).
"""

import contextlib
import dataclasses
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import secrets
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_ic import saving
from keras_ic.tuning.trial import folder_of
from keras_ic.tuning.trial_queue import LEASE, LeaseLostError, Task, TrialQueue, checked_name

SECRET = "secret"
SIGNATURE = "X-Signature"
ANSWER = 600  # seconds for an answer of a chief that is there: a Bayesian oracle may think for long
LONGEST = 2**20  # bytes of a message
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


class ChiefLostError(ConnectionError):
    """The chief of a search does not answer, or not as it should."""


def role() -> tuple[str, str] | None:
    """The id of this process in a search of many, and the address of the chief; None where the
    environment speaks of none.
    """
    values = [os.environ.get(name, "") for name in VARIABLES]
    if not values[1]:
        return None
    if not all(values):
        pairs = zip(VARIABLES, values, strict=True)
        shown = ", ".join(f"{name}={value!r}" for name, value in pairs)
        raise ValueError(
            f"A parallel search needs all three of {', '.join(VARIABLES)}; set them, or none."
            f" Received: {shown}"
        )
    return checked_name(values[0]), f"{values[1]}:{values[2]}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"The port must be a number below 65536. Received: {address!r}")
    return host, int(port)


def make_secret(folder: pathlib.Path) -> None:
    """Makes the secret of a search, in a file that only its owner can read."""
    with saving.replacing(folder / SECRET) as new:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)


def _sign(folder: pathlib.Path, body: bytes) -> str:
    """The signature of a message; the chief of today may have another secret than yesterday's."""
    try:
        secret = (folder / SECRET).read_bytes()
    except FileNotFoundError:
        raise ChiefLostError(
            "The chief of the search has not begun, or the folder is not the one that it has; give"
            f" its command first, with the same folder. Received: {str(folder)!r}"
        ) from None
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def _is_signed(folder: pathlib.Path, body: bytes, signature: str | None) -> bool:
    return hmac.compare_digest(_sign(folder, body).encode(), (signature or "").encode())


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], queue: TrialQueue):
        super().__init__(address, _Handler)
        self.queue = queue

    def handle_error(self, request, client_address):
        """Ignores what a stranger sends, and a worker that is gone."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one message. What is not signed changes nothing."""

    timeout = 10  # seconds until the connection of somebody who says nothing is closed
    server: _Server

    def do_POST(self):
        """Answers a signed message."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LONGEST:
            return self.send_error(413)
        body = self.rfile.read(int(length))
        if not _is_signed(self.server.queue.folder, body, self.headers.get(SIGNATURE)):
            return self.send_error(403)
        try:
            answer = self._answer(json.loads(body))
        except LeaseLostError as error:
            answer = {"lost": str(error)}
        except Exception as error:  # one of the queue ends the search; see `TrialQueue.error`
            answer = {"failed": f"{type(error).__name__}: {error}"}
        text = json.dumps(answer, default=float).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header(SIGNATURE, _sign(self.server.queue.folder, text))
        self.end_headers()
        self.wfile.write(text)

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        queue, worker = self.server.queue, checked_name(message["worker"])
        if message["call"] == "next":
            task = queue.next(worker)
            return {"task": dataclasses.asdict(task) if isinstance(task, Task) else task}
        task = Task(**message["task"])
        folder_of(queue.folder, task.trial)  # an error if the id is none
        {"beat": queue.beat, "end": queue.end}[message["call"]](worker, task)
        return {}

    def log_message(self, format, *arguments):
        """Nothing."""


@contextlib.contextmanager
def served(queue: TrialQueue, address: str) -> Iterator[int]:
    """Serves a queue at an address, `"host:port"`, where a port of 0 stands for any that is free;
    gives the port.
    """
    try:
        server = _Server(_host_and_port(address), queue)
    except OSError as error:
        raise OSError(
            f"Nothing can listen at this address ({error.strerror}); give one of this machine, with"
            f" a port that no other program has. Received: {address!r}"
        ) from None
    make_secret(queue.folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def wait_for_the_end(
    queue: TrialQueue, watch: Callable[[list[str]], None] = lambda dead: None
) -> None:
    """Returns when all trials are done and every worker knows it.

    Args:
        queue: The `TrialQueue`.
        watch: Function that is called now and then, with the ids of workers that count as dead.
    """
    while not queue.is_at_its_end():
        time.sleep(0.2)
        if queue.error is not None:
            raise queue.error
        watch(queue.give_up_the_dead())


class RemoteQueue:
    """The `TrialQueue` of the chief, for a worker.

    Args:
        address: String, `"host:port"` of the chief.
        folder: Path of the folder of the search, which all have in common.
        patience: Float, seconds to wait for a chief that does not answer.
    """

    def __init__(self, address: str, folder: pathlib.Path, patience: float = LEASE):
        self.address, self.folder, self.patience = address, folder, patience

    def next(self, worker: str) -> Task | str:
        """As of `TrialQueue`."""
        task = self._ask({"call": "next", "worker": worker}, ANSWER)["task"]
        if isinstance(task, str):
            return task
        task = Task(**task)
        folder_of(self.folder, task.trial)  # an error if the id is none
        return task

    def beat(self, worker: str, task: Task) -> None:
        """As of `TrialQueue`."""
        self._ask({"call": "beat", "worker": worker, "task": _shown(task)}, self.patience / 4)

    def end(self, worker: str, task: Task) -> None:
        """As of `TrialQueue`."""
        self._ask({"call": "end", "worker": worker, "task": _shown(task)}, ANSWER)

    def _ask(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The chief's answer to a message, which is sent again until the patience is at its end."""
        body = json.dumps(message).encode()
        deadline = time.monotonic() + self.patience / 2
        while True:
            try:
                answer = self._sent(body, timeout)
                break
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise ChiefLostError(
                        "The chief of the search does not answer, or is another one now; give the"
                        " chief's command again, then this one, and the search goes on. Received:"
                        f" {self.address!r} ({' '.join(str(error).split())})"
                    ) from None
                time.sleep(0.2)
        if "lost" in answer:
            raise LeaseLostError(answer["lost"])
        if "failed" in answer:
            raise ChiefLostError(
                f"The chief of the search has failed ({answer['failed']}); see what it says."
                f" Received: {self.address!r}"
            )
        return answer

    def _sent(self, body: bytes, timeout: float) -> dict[str, Any]:
        host, port = _host_and_port(self.address)
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request("POST", "/", body, {SIGNATURE: _sign(self.folder, body)})
            response = connection.getresponse()
            answer = response.read(LONGEST)
            if response.status != 200:
                raise OSError(f"status {response.status}: the chief has another secret")
            if not _is_signed(self.folder, answer, response.headers.get(SIGNATURE)):
                raise OSError("the answer is not signed with the secret of the search")
            return json.loads(answer)
        finally:
            connection.close()


def _shown(task: Task) -> dict[str, Any]:
    return {**dataclasses.asdict(task), "values": {}}


class LeaseKeeper(keras.callbacks.Callback):
    """Keeps the lease of a worker's trial while a block runs, and stops the training when it is
    lost, before anything more is written.

    Args:
        queue: A `RemoteQueue` or `TrialQueue`.
        worker: String, the id of the worker.
        task: The `Task`.
        every: Float, seconds from one beat to the next.
    """

    def __init__(self, queue: Any, worker: str, task: Task, every: float = LEASE / 12):
        super().__init__()
        self.queue, self.worker, self.task, self.every = queue, worker, task, every
        self.done = threading.Event()
        self.problem: ConnectionError | None = None
        self.heard = time.monotonic()

    def __enter__(self):
        self.thread = threading.Thread(target=self._beat, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.done.set()
        self.thread.join()

    def confirm(self) -> None:
        """Asks whether the trial is still this worker's; an error if not."""
        if self.problem is not None:
            raise self.problem
        self.queue.beat(self.worker, self.task)
        self.heard = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Asks again if the last answer is old, as that of a process that was suspended."""
        if self.problem is not None or time.monotonic() - self.heard > 3 * self.every:
            self.confirm()

    on_test_batch_end = on_train_batch_end

    def on_epoch_end(self, epoch, logs=None):
        """Asks before the epoch is recorded."""
        self.confirm()

    def _beat(self):
        while not self.done.wait(self.every):
            try:
                self.confirm()
            except ConnectionError as error:
                self.problem = error
                return
