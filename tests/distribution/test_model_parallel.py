"""`keras.distribution.ModelParallel`, on 2 x 2 devices of the host."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.distribution.conftest import ROOT

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="ModelParallel is JAX's")
NAMES = ("losses", "moving", "recalibrated", "folded", "uncertain", "measured")


@pytest.fixture(scope="module")
def found():
    """What one device computed, and what a mesh did."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.distribution.model_parallel"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["conv", "dense"])
@pytest.mark.parametrize("name", NAMES)
def test_as_on_one_device(found, kind, name):
    alone, spread = (each[kind][name] for each in found)
    for one, other in zip(alone, spread, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_the_weights_are_spread(found, kind):
    """Kernel and bias, gamma and beta of two blocks; not the classifier's."""
    assert found[1][kind]["parts"] == [2] * 8 + [1] * 2
    assert found[0][kind]["parts"] == [1] * 10
