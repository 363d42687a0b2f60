"""The oracle of a search for its workers in other processes, by the protocol and the environment
variables of Keras Tuner.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import keras

from keras_ic import saving
from keras_ic.tuning.oracles import LEASE
from keras_ic.utils.lazy_imports import needed

keras_tuner: Any = needed("keras_tuner", "keras-tuner", "tune")
grpc: Any = needed("grpc", "grpcio", "tune")
protos: Any = needed("keras_tuner.src.protos", "keras-tuner", "tune")
oracle_chief: Any = needed("keras_tuner.src.distribute.oracle_chief", "keras-tuner", "tune")
# keras-tuner 1.4.8 prints a value of each condition that it sends, a leftover.
needed("keras_tuner.src.engine.conditions", "keras-tuner", "tune").print = lambda *values: None

# Names the chief that is at work, so that no worker of the one before goes on beside its trial's
# new one.
CHIEF = "chief.txt"
ANSWER = 600  # seconds for an answer of a chief that is there: a Bayesian oracle may think for long
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
        shown = ", ".join(
            f"{name}={value!r}" for name, value in zip(VARIABLES, values, strict=True)
        )
        raise ValueError(
            f"A parallel search needs all three of {', '.join(VARIABLES)}; set them, or none."
            f" Received: {shown}"
        )
    return values[0], f"{values[1]}:{values[2]}"


@contextlib.contextmanager
def served(oracle: Any, address: str):
    """Serves an oracle at an address, `"host:port"`, where a port of 0 stands for any that is free;
    gives the port.
    """
    # Without the option, two chiefs could listen at one port, and each would get some of the
    # workers.
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)]
    )
    protos.get_service_grpc().add_OracleServicer_to_server(
        oracle_chief.OracleServicer(oracle), server
    )
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise OSError(
            "Nothing can listen at this address; give one of this machine, with a port that no"
            f" other program has. Received: {address!r}"
        )
    with saving.replacing(oracle.folder / CHIEF) as new:
        new.write_text(uuid.uuid4().hex, encoding="utf-8")
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=1).wait()


def wait_for_the_end(oracle: Any, watch: Callable[[], None] = lambda: None) -> None:
    """Returns when all trials are done and every worker knows it."""
    while not oracle.is_at_its_end():
        time.sleep(0.2)
        oracle.give_up_the_dead()
        if oracle.error is not None:
            raise oracle.error
        watch()


class RemoteOracle:
    """What a worker asks of the oracle at the chief."""

    def __init__(self, address: str, folder: pathlib.Path, patience: float = LEASE):
        self.address, self.folder, self.patience = address, folder, patience
        self.channel = grpc.insecure_channel(address)
        self.stub = protos.get_service_grpc().OracleStub(self.channel)
        self._ready()
        self.chief = self._name()

    def create_trial(self, tuner_id: str) -> Any:
        """The next trial."""
        response = self._ask(
            self.stub.CreateTrial, protos.get_service().CreateTrialRequest(tuner_id=tuner_id)
        )
        return keras_tuner.engine.trial.Trial.from_proto(response.trial)

    def end_trial(self, trial: Any) -> None:
        """Reports that a trial has ended, and has left its result in its folder."""
        self._ask(self.stub.EndTrial, protos.get_service().EndTrialRequest(trial=trial.to_proto()))

    @contextlib.contextmanager
    def alive(self, trial_id: str):
        """Tells the chief that this worker lives; gives a callback that stops the training when the
        chief does not.
        """
        done, lost = threading.Event(), threading.Event()

        def beat():
            heard = time.monotonic()
            while not done.wait(self.patience / 12):
                request = protos.get_service().GetTrialRequest(trial_id=trial_id)
                with contextlib.suppress(grpc.RpcError):
                    self.stub.GetTrial(request, timeout=self.patience / 4)
                    heard = time.monotonic()
                if time.monotonic() - heard > self.patience / 2 or self._name() != self.chief:
                    lost.set()
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield _StopWhen(lost, self._lost)
        finally:
            done.set()
            thread.join()

    def _name(self) -> str | None:
        path = self.folder / CHIEF
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _ready(self) -> None:
        try:
            grpc.channel_ready_future(self.channel).result(timeout=self.patience)
        except grpc.FutureTimeoutError:
            raise self._lost() from None

    def _ask(self, method, request):
        self._ready()
        try:
            return method(request, timeout=ANSWER)
        except grpc.RpcError as error:
            if error.code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.CANCELLED,
            ):
                raise self._lost() from None
            raise ChiefLostError(
                f"The chief of the search has failed ({error.details()}); see what it says."
                f" Received: {self.address!r}"
            ) from None

    def _lost(self) -> ChiefLostError:
        return ChiefLostError(
            "The chief of the search does not answer, or is another one now; give the chief's"
            f" command again, then this one, and the search goes on. Received: {self.address!r}"
        )


class _StopWhen(keras.callbacks.Callback):
    """Raises an error between two steps once an event is set."""

    def __init__(self, event: threading.Event, error: Callable[[], Exception]):
        super().__init__()
        self.event, self.error = event, error

    def on_train_batch_end(self, batch, logs=None):
        if self.event.is_set():
            raise self.error()

    on_test_batch_end = on_train_batch_end
