"""The process of the command line: its streams, its signals and its exit code."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from _keras_ic_main import LEVEL
from keras_ic import program

ROOT = pathlib.Path(__file__).parents[1]


def ends_with(monkeypatch, main):
    """The exit code of the program whose command line is `main`."""
    monkeypatch.setattr(program.cli, "main", main)
    monkeypatch.setattr(program, "mend_streams", lambda: None)
    with pytest.raises(SystemExit) as end:
        program.program()
    return end.value.code


@pytest.fixture
def handlers():
    """Puts back what signals did before."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_closed_stdout_and_an_encoding_without_a_character(monkeypatch):
    stderr = io.TextIOWrapper(io.BytesIO(), "ascii", "strict")
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", stderr)
    program.mend_streams()
    print("nothing")
    print("51.2 \u00b1 0.3", file=stderr, flush=True)
    sys.stdout.close()
    assert stderr.buffer.getvalue() == b"51.2 ? 0.3\n"


def test_signals_after_a_stop_change_nothing(monkeypatch, handlers):
    def main():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            return 75

    assert ends_with(monkeypatch, main) == 75
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)


def test_a_signal_in_a_verb_that_saves_nothing(monkeypatch, handlers, capsys):
    assert ends_with(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM)) == 75
    assert capsys.readouterr().err == "keras-ic: stopped\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_package_is_imported(number):
    code = "print('begun', flush=True); from _keras_ic_main import main; main()"
    environment = {key: value for key, value in os.environ.items() if key != LEVEL}
    with subprocess.Popen(
        [sys.executable, "-c", code, "--version"],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        time.sleep(0.5)  # the import takes seconds
        process.send_signal(number)
        shown, error = process.communicate()
    assert (process.returncode, shown, error) == (75, "", "keras-ic: stopped\n")


def test_the_program_runs_the_command_line_without_log_lines_of_libraries(tmp_path):
    # The import of Keras writes a line as TensorFlow does, and one that somebody should read.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'keras':\n"
        "            sys.meta_path.remove(self)\n"
        "            os.write(2, b'I0000 00:00:1.0 1 port.cc:1] oneDNN\\nTo be read\\n')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    environment.pop(LEVEL, None)
    done = subprocess.run(
        [sys.executable, "-c", "from _keras_ic_main import main; main()", "--version"],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("keras_ic ")
    assert "To be read\n" in done.stderr and "oneDNN" not in done.stderr
