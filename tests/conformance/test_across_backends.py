"""A file saved under TensorFlow gives the same predictions under JAX and torch."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
OTHERS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]


@pytest.fixture(scope="module")
def loaded_elsewhere(request, tmp_path_factory):
    """The folder of the files and of what the other backends predicted, and what each process said
    of each entry.
    """
    folder = tmp_path_factory.mktemp("across")
    entries = [
        item.callspec.params["entry"] for item in request.session.items if item.path == request.path
    ]
    said = {}
    for entry in entries:
        entry.built().save(folder / f"{entry.name}.keras")
    for backend in OTHERS:
        arguments = [
            sys.executable,
            "-m",
            "tests.conformance.child",
            "predict",
            str(folder),
            *(entry.name for entry in entries),
        ]
        done = subprocess.run(
            arguments,
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said[backend] = json.loads((folder / f"predict.{backend}.json").read_text())
    return folder, said


def test_across_backends(entry, request):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the files are saved under TensorFlow, and loaded elsewhere by that run")
    if not OTHERS:
        pytest.skip("neither JAX nor torch is installed")
    if "synchronized" in entry.name:
        pytest.skip("synchronized layers are for TensorFlow alone, as in BatchNormalization")
    folder, said = request.getfixturevalue("loaded_elsewhere")
    expected = keras.models.load_model(folder / f"{entry.name}.keras").predict(
        entry.samples(4)[0], verbose=0
    )
    for backend in OTHERS:
        assert said[backend][entry.name] == "done"
        np.testing.assert_allclose(
            np.load(folder / f"{entry.name}.{backend}.npy"),
            expected,
            rtol=1e-3,
            atol=1e-4 * np.abs(expected).max(),
            err_msg=backend,
        )
