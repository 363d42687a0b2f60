"""The record of a run of the tests, and the table that is made of such records."""

import json
import os
import pathlib
import subprocess
import sys

from tests.outcome import OUTCOMES, PAGE, page, table

TESTS = """
import pytest

def test_one(): pass
def test_two(): pass
def test_wrong(): assert False
def test_skipped(): pytest.skip("no reason")

@pytest.mark.slow(reason="it is long")
def test_slow(): pass

@pytest.fixture
def broken():
    yield
    raise ValueError

def test_broken(broken): pass
"""


def test_a_run_is_counted_and_shown(tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "--outcome",
        tmp_path / "runs" / "some.json",
        tmp_path,
    ]
    root = pathlib.Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTEST_ADDOPTS": "-rs",
        "IC_SLOW": "0",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "slow: it is long (--slow runs it)" in done.stdout
    found = json.loads((tmp_path / "runs" / "some.json").read_text())
    counts = [found[name] for name in OUTCOMES]
    assert counts == [2, 2, 2]
    shown = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    assert (
        table(tmp_path / "runs").splitlines()[2]
        == f"| `make some` | {shown} | {' | '.join(map(str, counts))} |"
    )


def test_the_page_shows_the_runs_as_they_are():
    text = PAGE.read_text(encoding="utf-8")
    assert "<!-- runs -->" in text
    assert page(text) == text  # else run `python -m tests.outcome`
