"""The workers of a search on this machine: how they are started, watched and started again."""

import collections
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from keras_ic.tuning.worker import RENEW
from keras_ic.utils.exit_codes import ExitCode

LOGS, WORKER = "log", "keras_ic.tuning.worker"
STARTS = 3  # in a row, that a signal has ended before a word to the chief
# TensorFlow keeps a part of every compiled training, some 10 MB of a small network
# (keras-tuner#873). A new process has none of it.
TRIALS_OF_A_PROCESS = 10


class Workers:
    """Processes of this machine, with the ids `worker0`, `worker1` and so on. What each prints is
    in the search's folder, in `log`.

    Each ends when this process does, whatever ends it, so that none goes on beside those of the
    next. `heard` tells when the chief last heard of each.
    """

    def __init__(
        self,
        count: int,
        folder: pathlib.Path,
        host: str,
        port: int,
        data_dir: Any,
        heard: dict[str, float],
    ):
        self.folder, self.host, self.port, self.data_dir, self.heard = (
            folder,
            host,
            port,
            data_dir,
            heard,
        )
        # How often each was killed, by when the chief had last heard of it.
        self.kills: collections.Counter = collections.Counter()
        (folder / LOGS).mkdir(exist_ok=True)
        self.processes = {
            f"worker{index}": self._started(f"worker{index}", index) for index in range(count)
        }

    def _started(self, tuner_id: str, index: int) -> subprocess.Popen:
        own = {
            "KERASTUNER_TUNER_ID": tuner_id,
            "KERASTUNER_ORACLE_IP": self.host,
            "KERASTUNER_ORACLE_PORT": str(self.port),
        }
        # They share this machine's GPUs: each takes one, and of it as much as it needs.
        devices = [
            device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device
        ]
        if devices:
            own["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
        environment = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", **os.environ, **own}
        command = [
            sys.executable,
            "-m",
            WORKER,
            str(self.folder),
            str(TRIALS_OF_A_PROCESS),
        ]
        command += [] if self.data_dir is None else [str(self.data_dir)]
        with open(self._log(tuner_id), "ab") as log:
            # It reads the pipe, which is at its end as soon as this process is gone.
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
            )

    def _log(self, tuner_id: str) -> pathlib.Path:
        return self.folder / LOGS / f"{tuner_id}.txt"

    def watch(self, dead: list[str]) -> None:
        """Starts those again that something has killed; stops with the error of one that has come
        to its end itself. Those that count as dead, as if suspended, are killed, so that they leave
        their trial's folder to others.
        """
        for tuner_id in set(dead) & set(self.processes):
            self.processes[tuner_id].kill()
            self.processes[tuner_id].wait()
        for index, (tuner_id, process) in enumerate(self.processes.items()):
            code = process.poll()
            if code is not None and (code < 0 or code in (RENEW, ExitCode.STOPPED)):
                if code != RENEW:
                    self._count(tuner_id, code)
                    print(
                        f"{tuner_id} was stopped by a signal; another takes up its trial",
                        flush=True,
                    )
                _release(process)
                self.processes[tuner_id] = self._started(tuner_id, index)
            elif code:
                path = self._log(tuner_id)
                last = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise ValueError(f"{tuner_id} stopped: {''.join(last)} ({path})")

    def _count(self, tuner_id: str, code: int) -> None:
        key = tuner_id, self.heard.get(tuner_id)
        self.kills[key] += 1
        if self.kills[key] >= STARTS:
            raise ValueError(
                f"{tuner_id} was killed {STARTS} times before its first trial, perhaps for lack of"
                f" memory; take fewer workers. Received: exit code {code} ({self._log(tuner_id)})"
            )

    def end(self) -> None:
        """Stops those that run, each with its trial saved."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 60
        for process in self.processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _release(process)


def _release(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    process.stdin.close()
