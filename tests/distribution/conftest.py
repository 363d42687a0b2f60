import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


class Job:
    """The processes of one run. `wait` gives their exit codes; their output is in `text`."""

    def __init__(self, arguments, workers, folder, environment=None):
        self.ports, self.folder = free_ports(workers), folder
        cluster = {"worker": [f"localhost:{port}" for port in self.ports]}
        self.processes = []
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(workers):
            config = (
                {
                    "TF_CONFIG": json.dumps(
                        {"cluster": cluster, "task": {"type": "worker", "index": index}}
                    )
                }
                if workers > 1
                else {}
            )
            # One thread each: more would only wait for one another.
            threads = {
                "TF_NUM_INTRAOP_THREADS": "1",
                "TF_NUM_INTEROP_THREADS": "2",
                "KERAS_BACKEND": "tensorflow",
                "TF_CPP_MIN_LOG_LEVEL": "3",
            }
            with open(folder / f"output{index}.txt", "w") as file:
                process = subprocess.Popen(
                    [sys.executable, *arguments],
                    cwd=ROOT,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **threads, **config, **(environment or {})},
                )
            self.processes.append(process)

    def wait(self, seconds=240):
        end = time.monotonic() + seconds
        try:
            return [process.wait(max(end - time.monotonic(), 0.1)) for process in self.processes]
        finally:
            self.end()

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def text(self, index):
        return (self.folder / f"output{index}.txt").read_text()


@pytest.fixture
def start(tmp_path):
    """Starts a job of the arguments of `python`; whatever happens, none of its processes outlives
    the test.
    """
    jobs = []

    def start(arguments, workers=2, environment=None):
        jobs.append(
            Job(list(map(str, arguments)), workers, tmp_path / f"output{len(jobs)}", environment)
        )
        return jobs[-1]

    yield start
    for job in jobs:
        job.end()


@pytest.fixture
def train(start, tmp_path):
    """Runs `job.py` to its end in so many processes, and gives what they wrote, the job, and their
    exit codes.
    """

    def train(workers, out, **settings):
        folder = tmp_path / out
        folder.mkdir(exist_ok=True)
        job = start(
            [
                "-W",
                "ignore",
                "-m",
                "tests.distribution.job",
                json.dumps({"out": str(folder), **settings}),
            ],
            workers,
        )
        codes = job.wait()
        results = [folder / f"{index}.json" for index in range(workers)]
        return (
            [json.loads(path.read_text()) if path.exists() else None for path in results],
            job,
            codes,
        )

    return train
