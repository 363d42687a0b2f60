"""`keras.distribution.DataParallel` on two devices of one process, and on two real processes."""

import json

import keras
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="these are JAX's")
PROGRAM = ["-W", "ignore", "-m", "tests.distribution.jax_job"]


def found(job, index):
    return json.loads(job.text(index).splitlines()[-1])


def test_two_devices(start):
    job = start(
        PROGRAM,
        1,
        {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    )
    assert job.wait() == [0], job.text(0)
    result = found(job, 0)
    assert result["replicas"] == 2 and result["losses"][-1] < 0.5 * result["losses"][0]


def test_two_processes(start):
    job = start(PROGRAM, 2, {"KERAS_BACKEND": "jax"})
    assert job.wait() == [0, 0], job.text(0) + job.text(1)
    one, two = found(job, 0), found(job, 1)
    assert one == two and one["processes"] == one["replicas"] == 2
    assert one["losses"][-1] < 0.5 * one["losses"][0]
