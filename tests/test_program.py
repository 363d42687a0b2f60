"""The process of the command line, in processes of its own."""

import os
import subprocess
import sys


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
