import contextlib
import json
import socket
import threading
import time

import pytest

from keras_ic import distribution
from keras_ic.distribution.cluster import answer_chief, check_port, wait_for_peers
from tests.distribution.conftest import free_ports

GOOD = {
    "cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"]},
    "task": {"type": "worker", "index": "1"},
}


def changed(**parts):
    return json.dumps({**GOOD, **parts})


def test_tf_config():
    found = distribution.cluster({"TF_CONFIG": json.dumps(GOOD)})
    assert (
        found.addresses == ["a:1", "b:2", "c:3"]
        and found.index == 2
        and not found.is_chief
        and found.task == ("worker", 1)
    )
    chief = distribution.cluster({"TF_CONFIG": changed(task={"type": "chief", "index": 0})})
    assert chief.is_chief and chief.jobs == GOOD["cluster"]


@pytest.mark.parametrize(
    "text", ["", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}']
)
def test_no_cluster(text):
    assert distribution.cluster({"TF_CONFIG": text}) is None
    assert distribution.cluster({"SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'cluster'", "is no JSON"),
        ("[]", "needs a dictionary `cluster` and a dictionary `task`"),
        (changed(cluster=3), "needs a dictionary `cluster` and a dictionary `task`"),
        (changed(cluster={"worker": ["a:1"], "ps": ["b:1"]}), "not ps"),
        (changed(cluster={"worker": []}), "a list of addresses host:port"),
        (changed(cluster={"worker": ["a"]}), "a list of addresses host:port"),
        (changed(cluster={"worker": ["a:99999"]}), "a list of addresses host:port"),
        (changed(cluster={"worker": ["a:1", "a:1"]}), "the same address"),
        (changed(cluster={"chief": ["a:1", "b:1"]}), "one chief"),
        (changed(task={"type": "worker", "index": 2}), "a task that is not in its cluster"),
        (changed(task={"type": "worker", "index": "x"}), "a task that is not in its cluster"),
        (changed(task={"type": "evaluator", "index": 0}), "a task that is not in its cluster"),
        (changed(task={}), "a task that is not in its cluster"),
    ],
)
def test_malformed_tf_config(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=f"(?s){message}.*must look like.*Received: TF_CONFIG="):
        distribution.cluster()


SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "gpu[08-09],login",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
}


def test_slurm():
    found = distribution.cluster(SLURM)
    assert found.addresses == ["gpu08:8888", "gpu08:8889", "gpu09:8888", "gpu09:8889", "login:8888"]
    assert found.index == 2 and found.source == "SLURM"
    assert distribution.cluster({**SLURM, "KERAS_IC_PORT": "99"}).addresses[0] == "gpu08:99"
    assert distribution.cluster({**SLURM, "TF_CONFIG": json.dumps(GOOD)}).source == "TF_CONFIG"


@pytest.mark.tensorflow_only
def test_slurm_is_read_as_by_tensorflow(monkeypatch):
    import tensorflow as tf

    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=2, gpus_per_task=1, auto_set_gpu=False
    )
    assert resolver.cluster_spec().as_dict() == distribution.cluster().jobs
    assert resolver.get_task_info() == distribution.cluster().task


def test_hosts_stand_in_the_order_of_their_ranks():
    hosts = {
        **SLURM,
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": "0",
        "SLURM_STEP_NODELIST": "n[9-10]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    }
    assert distribution.cluster(hosts).addresses == ["n9:8888", "n10:8888"]


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_PROCID": "5"},
        {"SLURM_STEP_TASKS_PER_NODE": "1"},
        {"SLURM_STEP_NODELIST": ""},
        {"SLURM_PROCID": "x"},
    ],
)
def test_slurm_variables_that_do_not_fit(change):
    with pytest.raises(ValueError, match=r"do not fit together.*srun.*Received: SLURM_PROCID="):
        distribution.cluster({**SLURM, **change})


def here(*ports, index=0):
    config = {
        "cluster": {"worker": [f"localhost:{port}" for port in ports]},
        "task": {"type": "worker", "index": index},
    }
    return distribution.cluster({"TF_CONFIG": json.dumps(config)})


def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ValueError,
            match=f"port of this task is not to be had.*Received: 'localhost:{port}' of TF_CONFIG",
        ):
            check_port(here(port, 1))
    check_port(here(port, 1))


def test_the_chief_waits_for_the_others_and_not_for_ever():
    with contextlib.closing(socket.socket()) as peer:
        peer.bind(("localhost", 0))
        port = peer.getsockname()[1]
        begin = time.monotonic()
        with pytest.raises(
            distribution.LostPeerError,
            match=f"did not start within 0.5 seconds.*Received: 'localhost:{port}'",
        ):
            wait_for_peers(here(1, port), 0.5)
        assert time.monotonic() - begin < 5
        peer.listen()
        wait_for_peers(here(1, port), 5)
        wait_for_peers(here(port, 1, index=1), 0)  # no chief, no wait


def test_a_worker_answers_the_chief_and_does_not_wait_for_it_for_ever():
    (port,) = free_ports(1)
    with pytest.raises(
        distribution.LostPeerError,
        match=r"chief did not start within 0.1 s.*Received: 'localhost:1'",
    ):
        answer_chief(here(1, port, index=1), 0.1)
    worker = threading.Thread(target=answer_chief, args=(here(1, port, index=1), 60))
    worker.start()
    wait_for_peers(here(1, port), 60)
    worker.join(60)
    assert not worker.is_alive()
    answer_chief(here(port, 1), 0)  # the chief itself
