"""The process of the command line, in processes of its own."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(code, *arguments, **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, **options)


def test_a_closed_stdout_and_an_encoding_without_a_character():
    code = """
import os, sys
sys.stdout = None
from keras_ic.program import mend_streams
mend_streams()
print("nothing")
print("51.2 \u00b1 0.3", file=sys.stderr)
"""
    done = run(code, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"})
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "51.2 ? 0.3"


def test_signals_after_a_stop_change_nothing():
    code = """
import signal, sys
from keras_ic import cli


def main():
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        return 75


cli.main = main
from keras_ic.program import program

try:
    program()
finally:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
"""
    assert run(code).returncode == 75


def test_a_signal_in_a_verb_that_saves_nothing():
    code = """
import signal
from keras_ic import cli

cli.main = lambda: signal.raise_signal(signal.SIGTERM)
from keras_ic.program import program

program()
"""
    done = run(code)
    assert done.returncode == 75 and done.stderr.splitlines()[-1] == "keras-ic: stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_package_is_imported(number):
    code = "print('begun', flush=True); from _keras_ic_main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "--version"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        time.sleep(0.5)  # the import takes seconds
        process.send_signal(number)
        shown, error = process.communicate()
    # TensorFlow may have written lines of its own before.
    assert (process.returncode, shown) == (75, "")
    assert error.endswith("keras-ic: stopped\n") and "Traceback" not in error


def test_the_program_runs_the_command_line():
    code = "from _keras_ic_main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 0 and done.stdout.startswith("keras_ic ")
