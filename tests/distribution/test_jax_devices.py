"""Trainings on JAX on one device and on several, in one process and in two, of which some are
killed and go on elsewhere.
"""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ic import saving
from keras_ic.cli import main
from keras_ic.distribution import jax_devices
from keras_ic.training import TrainingConfig, read, run
from tests.distribution.conftest import ROOT
from tests.training.conftest import folders  # noqa: F401

pytest.importorskip("tensorflow", reason="the images come through tf.data")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="these are JAX's devices")
PROGRAM = ["-W", "ignore", "-m", "tests.distribution.jax_training"]


def environment(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags}


def train(devices, *jobs):
    """Runs the jobs one after another in a process of so many devices."""
    command = [sys.executable, *PROGRAM, json.dumps(jobs)]
    return subprocess.run(
        command, cwd=ROOT, env=environment(devices), capture_output=True, text=True
    )


def numbers(folder):
    """The losses of every epoch, and all weights."""
    record = read(folder)
    losses = [record.values(name) for name in ("loss", "val_loss")]
    return losses, saving.load_model(folder / "model.keras").get_weights()


def assert_same_numbers(one, other):
    for ours, theirs in zip(numbers(one), numbers(other), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An unbroken run on one device, and runs that four devices began, were killed on in the second
    of three epochs, and one, two and eight went on with.
    """
    folder = tmp_path_factory.mktemp("runs")
    killed = train(4, {"out": str(folder / "4"), "kill": [0, 7]})
    assert killed.returncode == -9, killed.stderr
    jobs = [{"out": str(folder / "unbroken"), "devices": 1}]
    for devices in (1, 2, 8):
        shutil.copytree(folder / "4", folder / f"4 to {devices}")
        jobs.append({"out": str(folder / f"4 to {devices}"), "devices": devices})
    done = train(8, *jobs)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_goes_on_with_other_devices(runs, devices):
    assert_same_numbers(runs / f"4 to {devices}", runs / "unbroken")
    head = read(runs / f"4 to {devices}").head
    assert head["devices"] == {"cpu": 4} and head["replicas"] == 4 and len(head["hosts"]) == 1
    (resumed,) = head["resumed"]
    assert resumed["epoch"] == 2 and resumed["devices"] == {"cpu": devices}


def test_two_processes_stop_together_lose_one_another_and_one_goes_on(runs, start, tmp_path):
    """Each of two devices. A signal to the worker stops both after the same step; then the worker
    is killed.
    """
    out = tmp_path / "run"

    def two(**what):
        job = start([*PROGRAM, json.dumps([{"out": str(out), **what}])], 2, environment(2))
        return job, job.wait()

    job, codes = two(stop=[1, 5])
    assert codes == [75, 75], job.text(0) + job.text(1)
    job, codes = two(kill=[1, 9])
    assert codes == [75, -9], job.text(0) + job.text(1)
    assert "Another worker is gone or does not answer; start the same command" in job.text(0)
    assert len(read(out).epochs) == 2
    done = train(1, {"out": str(out)})
    assert done.returncode == 0, done.stderr
    assert_same_numbers(out, runs / "unbroken")
    head = read(out).head
    assert (head["workers"], head["devices"], head["hosts"]) == (2, {"cpu": 4}, ["localhost"] * 2)
    assert [(each["epoch"], each["workers"]) for each in head["resumed"]] == [(3, 1)]


def test_image_files(folders, start, tmp_path):  # noqa: F811
    """Of which each of two processes reads its own; the last validation batch is filled up."""
    values = {"data": str(folders), "train_size": None, "image_size": 32, "batch": 8, "epochs": 1}
    values |= {"optimizer": "sgd", "learning_rate": 0.05}

    def job(name, **more):
        return {"out": str(tmp_path / name), "config": values, **more}

    done = train(2, job("one", devices=1), job("two", devices=2))
    assert done.returncode == 0, done.stderr
    both = start([*PROGRAM, json.dumps([job("processes")])], 2, environment(1))
    assert both.wait() == [0, 0], both.text(0) + both.text(1)
    for name, workers in (("two", 1), ("processes", 2)):
        assert_same_numbers(tmp_path / name, tmp_path / "one")
        head = read(tmp_path / name).head
        assert (head["replicas"], head["workers"], head["images"]["validation"]) == (2, workers, 12)


class Devices(keras.distribution.DataParallel if hasattr(keras, "distribution") else object):
    """As if one device were several."""

    num_model_replicas = 4


@pytest.fixture
def four_devices():
    made = Devices(devices=keras.distribution.list_devices()[:1])
    keras.distribution.set_distribution(made)
    yield made
    keras.distribution.set_distribution(None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 6}, r"must be a multiple of the replicas .*4 .* would be. Received: batch=6"),
        ({"train_size": 70}, "for each replica; .*Received: 6 images for 4 replicas"),
        ({"accumulate": 2}, "`accumulate` needs the TensorFlow backend"),
    ],
)
def test_what_the_devices_cannot_share(four_devices, tmp_path, values, message):
    """A distribution that is set is respected, so that the run is one on four devices."""
    config = TrainingConfig(**{"data": "digits", "model": "small", "batch": 8, **values})
    with pytest.raises((ValueError, NotImplementedError), match=message):
        run(config, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_strategies_of_tensorflow_are_refused(tmp_path, capsys):
    for kind in ("mirrored", "multiworker", "tpu"):
        command = ["train", "--data", "digits", "--strategy", kind, "--out", str(tmp_path / "run")]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "On JAX, 'auto' takes all devices" in error and error.count("\n") == 1
        assert error.endswith(f"Received: kind='{kind}'\n")


def test_per_replica_batches_are_joined():
    import tensorflow as tf

    whole = tf.data.Dataset.range(12).batch(3).map(lambda row: (row, row[:, None] * 2))
    batches = list(jax_devices.joined(whole, 2).as_numpy_iterator())
    assert [row.tolist() for row, _ in batches] == [[*range(6)], [*range(6, 12)]]
    assert batches[1][1].shape == (6, 1)
