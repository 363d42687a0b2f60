"""One process a folder, and none that is dead."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from keras_ic.utils import folder_lock as module
from keras_ic.utils.folder_lock import NAME, folder_lock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems have no such locks")
# Imports nothing but the module, so that the process starts at once.
HOLDER = f"""
import runpy, sys, time
folder_lock = runpy.run_path({module.__file__!r})["folder_lock"]
with folder_lock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def another_process(folder):
    """A process that has the lock until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def refused(folder):
    """The message of the second one."""
    with pytest.raises(ValueError) as caught, folder_lock(folder):
        pass
    message = str(caught.value)
    assert "\n" not in message and message.endswith(f"Received: {str(folder)!r}")
    return message


def test_a_second_process_is_told_who_has_it_and_a_dead_one_does_not_keep_it(tmp_path):
    folder = tmp_path / "new" / "run"
    with another_process(folder) as process:
        for _ in range(2):  # being refused changes nothing
            assert f"(process {process.pid} on {socket.gethostname()})" in refused(folder)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / NAME).exists()
        with folder_lock(folder):
            assert json.loads((folder / NAME).read_text())["pid"] == os.getpid()
    assert os.listdir(folder) == []


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_this_process_keeps_others_out_also_when_a_forked_one_has_left_the_block(tmp_path):
    with contextlib.ExitStack() as block:
        block.enter_context(folder_lock(tmp_path))
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                block.close()
            os._exit(0)
        os.waitpid(child, 0)
        done = subprocess.run(
            [sys.executable, "-c", HOLDER, str(tmp_path)],
            check=False,
            input="",
            capture_output=True,
            text=True,
        )
    assert f"ValueError: Another run has this folder (process {os.getpid()} on" in done.stderr
    with another_process(tmp_path) as process:
        process.communicate("\n")
        assert process.returncode == 0


def test_another_thread_and_another_path_of_the_same_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    messages = []
    with folder_lock(tmp_path / "run"):
        thread = threading.Thread(target=lambda: messages.append(refused(tmp_path / "link")))
        thread.start()
        thread.join()
        with folder_lock(tmp_path / "another"):
            pass
    assert f"process {os.getpid()} on" in messages[0]
    with folder_lock(tmp_path / "link"):
        pass


def test_an_error_in_the_block_releases_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), folder_lock(tmp_path):
        raise KeyboardInterrupt
    with folder_lock(tmp_path):
        pass


def test_a_file_that_its_owner_deleted_meanwhile_is_no_lock(tmp_path, monkeypatch):
    lockf, calls = module.fcntl.lockf, []

    def lock_late(*args):
        if not calls:
            (tmp_path / NAME).unlink()
        calls.append(args)
        lockf(*args)

    monkeypatch.setattr(module.fcntl, "lockf", lock_late)
    with folder_lock(tmp_path):
        assert len(calls) == 2 and (tmp_path / NAME).exists()


@pytest.mark.parametrize("content", ["", "null", "[" * 999, '{"host": "a"}', "\x00"])
def test_an_owner_that_has_not_written_who_it_is(tmp_path, content):
    with another_process(tmp_path):
        (tmp_path / NAME).write_text(content)
        assert "(its process id is not known)" in refused(tmp_path)


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "lockf", none)
    with pytest.warns(UserWarning, match="has no locks"), folder_lock(tmp_path):
        pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        assert "is a file" in refused(path)
    assert (tmp_path / "file").read_text() == "x"
