"""Which processes train together, as TF_CONFIG or SLURM say it; checked before a framework sees it,
since theirs is a late and obscure error.
"""

import contextlib
import dataclasses
import json
import os
import re
import socket
import time
from collections.abc import Mapping

from keras_ic.distribution.peers import LostPeerError

TF_CONFIG = "TF_CONFIG"
TASKS = ("chief", "worker")
PORTS = 2**16
# Far more than any step has, so that a damaged variable is told and not worked through.
MOST_TASKS = 10**5


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a job and the place of this one among them.

    Attributes:
        addresses: List of strings `"host:port"`, the chief's first.
        index: Integer, the place of this process in the list.
        jobs: Dictionary from `"chief"` and `"worker"` to their addresses, as TensorFlow wants it.
        task: Tuple of this process's job and its number in that job.
        source: String, where all this was found: `"TF_CONFIG"` or `"SLURM"`.
    """

    addresses: list[str]
    index: int
    jobs: dict[str, list[str]]
    task: tuple[str, int]
    source: str

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0


def cluster(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """Reads the cluster from TF_CONFIG, or from the variables of a SLURM step of several tasks.

    Args:
        environment: Mapping of environment variables. Defaults to `None`: those of the process.

    Returns:
        The `Cluster`, or None if neither is there, or both speak of a single process.

    Raises:
        ValueError: If TF_CONFIG is malformed, names other tasks than chief and worker, or does not
            hold this task; or if SLURM's variables disagree.

    Example:

    ```python
    import json
    from keras_ic.distribution import cluster

    config = {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 1}}
    found = cluster({"TF_CONFIG": json.dumps(config)})
    assert found.index == 1 and not found.is_chief
    ```

    Reference:
    https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable
    """
    environment = os.environ if environment is None else environment
    found = None
    if environment.get(TF_CONFIG, "").strip() not in ("", "{}"):
        found = _from_tf_config(environment[TF_CONFIG])
    elif environment.get("SLURM_STEP_NUM_TASKS", "") not in ("", "0", "1"):
        found = _from_slurm(environment)
    return None if found is None or len(found.addresses) == 1 else found


def _from_tf_config(text: str) -> Cluster:
    def refuse(what):
        example = (
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker",'
            ' "index": 0}}'
        )
        return ValueError(
            f"TF_CONFIG {what}; it must look like {example}. Received: TF_CONFIG={text!r}"
        )

    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is no JSON ({error})") from None
    jobs = content.get("cluster") if isinstance(content, dict) else None
    task = content.get("task") if isinstance(content, dict) else None
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise refuse("needs a dictionary `cluster` and a dictionary `task`")
    others = sorted(set(jobs) - set(TASKS))
    if others or not jobs:
        raise refuse(f"may name the jobs chief and worker alone, not {', '.join(others) or 'none'}")
    for job, addresses in jobs.items():
        if (
            not isinstance(addresses, list)
            or not addresses
            or not all(_is_address(address) for address in addresses)
        ):
            raise refuse(f"must give the job {job} a list of addresses host:port")
    if len(jobs.get("chief", ())) > 1:
        raise refuse("may have one chief")
    addresses = [address for job in TASKS for address in jobs.get(job, ())]
    if len(set(addresses)) < len(addresses):
        raise refuse("gives two tasks the same address")
    kind, index = str(task.get("type")), task.get("index")
    if isinstance(index, str):
        with contextlib.suppress(ValueError):
            index = int(index)
    if kind not in jobs or type(index) is not int or not 0 <= index < len(jobs[kind]):
        raise refuse("has a task that is not in its cluster")
    before = len(jobs.get("chief", ())) if kind == "worker" else 0
    return Cluster(
        addresses,
        before + index,
        {job: list(jobs[job]) for job in TASKS if job in jobs},
        (kind, index),
        TF_CONFIG,
    )


def _is_address(value) -> bool:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return bool(host) and re.fullmatch("[0-9]{1,5}", port) is not None and 0 < int(port) < PORTS


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """The tasks of a step, those of a host on consecutive ports.

    As TensorFlow's SlurmClusterResolver, but in the order of the hosts' list, which is that of the
    ranks: the resolver sorts them by name, n10 before n9, and gives each the address of the other.
    """
    names = (
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_STEP_NODELIST",
        "SLURM_STEP_TASKS_PER_NODE",
    )
    values = {name: environment.get(name, "") for name in names}
    try:
        rank, tasks = int(values["SLURM_PROCID"]), int(values["SLURM_STEP_NUM_TASKS"])
        repeated = re.findall(r"(\d+)(?:\(x(\d+)\))?", values["SLURM_STEP_TASKS_PER_NODE"])
        if tasks > MOST_TASKS or sum(int(times or 1) for _, times in repeated) > tasks:
            raise ValueError
        hosts = _hosts(values["SLURM_STEP_NODELIST"], tasks)
        counts = [int(count) for count, times in repeated for _ in range(int(times or 1))]
        if len(hosts) != len(counts) or sum(counts) != tasks or not 0 <= rank < tasks:
            raise ValueError
    except ValueError:
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ValueError(
            "The variables of the SLURM step do not fit together; start the tasks with `srun`, or"
            f" set TF_CONFIG. Received: {shown}"
        ) from None
    port = environment.get("KERAS_IC_PORT", "8888")
    if re.fullmatch("[0-9]{1,5}", port) is None or not 0 < int(port) <= PORTS - max(counts):
        raise ValueError(
            "KERAS_IC_PORT must be a port followed by free ports for the other tasks of its host."
            f" Received: KERAS_IC_PORT={port!r}"
        )
    base = int(port)
    addresses = [
        f"{host}:{base + number}"
        for host, count in zip(hosts, counts, strict=True)
        for number in range(count)
    ]
    return Cluster(addresses, rank, {"worker": addresses}, ("worker", rank), "SLURM")


def _hosts(text: str, most: int) -> list[str]:
    """`a[1-2,05],b` as `a1`, `a2`, `a05`, `b`; a ValueError for more than `most`."""
    hosts = []
    for prefix, ranges in re.findall(r"([^,\[\]]+)(?:\[([^\]]+)\])?", text):
        for part in ranges.split(",") if ranges else []:
            first, _, last = part.partition("-")
            if int(last or first) - int(first) > most:
                raise ValueError
            hosts += [
                f"{prefix}{number:0{len(first)}d}"
                for number in range(int(first), int(last or first) + 1)
            ]
        hosts += [] if ranges else [prefix]
    return hosts


def check_port(found: Cluster) -> None:
    """Raises the error of a port that another process listens on; TensorFlow would say so in its
    log and wait for its peers.
    """
    port = int(found.addresses[found.index].rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: the port of a process that has just died counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"The port of this task is not to be had ({error.strerror}); end the process that"
                " has it, or give the task another port. Received:"
                f" {found.addresses[found.index]!r} of {found.source}"
            ) from None


def wait_for_peers(found: Cluster, timeout: float) -> None:
    """Has the chief wait until all others listen, since TensorFlow's leader would wait for them
    without end. The others' wait ends by itself.
    """
    end = time.monotonic() + timeout
    for address in found.addresses[1:] if found.is_chief else ():
        host, _, port = address.rpartition(":")
        while True:
            try:
                socket.create_connection(
                    (host.strip("[]"), int(port)), timeout=max(end - time.monotonic(), 0.1)
                ).close()
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise LostPeerError(
                        f"A worker did not start within {timeout:g} seconds ({error}); start all of"
                        f" them, with the same {found.source}. Received: {address!r}"
                    ) from None
                time.sleep(0.2)


def answer_chief(found: Cluster, timeout: float) -> None:
    """Has a worker of a framework that does not listen on its port do so until the chief's
    `wait_for_peers` has found it.
    """
    if found.is_chief:
        return
    port = int(found.addresses[found.index].rpartition(":")[2])
    with socket.create_server(("", port)) as server:
        server.settimeout(timeout)
        try:
            server.accept()[0].close()
        except TimeoutError:
            raise LostPeerError(
                f"The chief did not start within {timeout:g} seconds; start all workers, with the"
                f" same {found.source}. Received: {found.addresses[0]!r}"
            ) from None
