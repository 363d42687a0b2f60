"""With a seed, training comes to the same bits in another process, whose hashing and whose earlier
work differ.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.conformance.child import trained

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def of_another_process(request, tmp_path_factory):
    """What the child gives for every entry that is checked here, trained in the opposite order."""
    folder = tmp_path_factory.mktemp("determinism")
    names = [
        item.callspec.params["entry"].name
        for item in request.session.items
        if item.path == request.path
    ]
    arguments = [
        sys.executable,
        "-m",
        "tests.conformance.child",
        "train",
        str(folder),
        *reversed(names),
    ]
    done = subprocess.run(
        arguments,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / f"train.{keras.backend.backend()}.json").read_text())


def test_determinism(entry, of_another_process):
    assert trained(entry) == of_another_process[entry.name]
