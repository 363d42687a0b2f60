"""What the package imports, exports and says of itself."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_ic

ROOT = Path(__file__).parent.parent


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_importing_loads_nothing_that_keras_does_not_load():
    code = """
import sys, keras
before = {name.partition(".")[0] for name in sys.modules}
import keras_ic
print(*{name.partition(".")[0] for name in sys.modules} - before)
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) <= {"keras_ic"}


def test_a_backend_without_a_kernel_of_its_own_runs_the_reference():
    pytest.importorskip("jax", reason="Keras imports JAX for its NumPy backend")
    code = """
import keras_ic, numpy as np
from keras_ic.kernels import reference, train
assert train is reference.train
y = keras_ic.IC(0.5, seed=0)(np.random.default_rng(0).normal(size=(100, 20)), training=True)
assert 0.4 < (np.asarray(y) == 0).mean() < 0.6
"""
    result = run(code, KERAS_BACKEND="numpy")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", keras_ic.__all__)
def test_exported_names_exist(name):
    assert hasattr(keras_ic, name)


def test_the_two_names_of_the_layer_are_one_class():
    assert keras_ic.IC is keras_ic.IndependentComponent


def test_every_extra_is_in_all():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = dict(config["options.extras_require"])
    everything = extras.pop("all").partition("[")[2].partition("]")[0]
    assert set(everything.split(",")) == set(extras)


def test_the_changelog_knows_the_version():
    assert f"## {keras_ic.__version__}" in (ROOT / "CHANGELOG.md").read_text()
