"""One process a folder."""

import contextlib
import errno
import json
import os
import pathlib
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
# What a file system that has no locks answers.
WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)

# The folders that this process has locked, and its id. The kernel's locks are those of a process,
# so that it would give one process the same lock twice. A forked process has none of them.
_own: dict[pathlib.Path, int] = {}
_own_guard = threading.Lock()


@contextlib.contextmanager
def folder_lock(folder: Any) -> Iterator[None]:
    """Keeps a folder for this process while a block runs.

    The kernel releases the lock when the process ends, also after `kill -9`. The file `.lock` in
    the folder holds the host and the process id of the owner; its presence alone means nothing. The
    lock also holds between the machines that share a file system, if that file system has locks
    (NFS, Lustre with `-o flock`). If it has none, there is a warning and no lock; on Windows there
    is no lock.

    Args:
        folder: Path of the folder, which is made if it is not there.

    Raises:
        ValueError: If another process, or another thread of this one, has the lock; the message
            names the host and the process. If the path is that of a file.
        OSError: If the folder cannot be made or written to.

    Example:

    ```python
    import tempfile
    from keras_ic.utils.folder_lock import folder_lock

    with folder_lock(tempfile.mkdtemp()):
        pass  # the same in another process is a ValueError here
    ```
    """
    path = pathlib.Path(os.path.realpath(folder))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"The folder is a file; choose another. Received: {str(folder)!r}"
        ) from None
    owner = os.getpid()
    with _own_guard:
        if _own.get(path) == owner:
            raise _held(folder, _described(socket.gethostname(), owner))
        descriptor = _locked(path / NAME, folder)
        _own[path] = owner
    try:
        yield
    finally:
        # A forked process that leaves the block has no lock to release.
        if os.getpid() == owner:
            with _own_guard:
                del _own[path]
                if descriptor is not None:
                    # Before the lock is released; `_locked` looks whether the file is still there.
                    (path / NAME).unlink(missing_ok=True)
                    os.close(descriptor)


def _locked(file: pathlib.Path, folder: Any) -> int | None:
    """The descriptor of the locked file, None where there are no locks."""
    if fcntl is None:
        return None
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_the_file(descriptor, file):
                text = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text.encode(), 0)
                return descriptor
        except OSError as error:
            owner = os.pread(descriptor, 1000, 0)
            os.close(descriptor)
            if error.errno in WITHOUT_LOCKS:
                warnings.warn(
                    "The file system of this folder has no locks; see to it that one process alone"
                    f" works in it. Received: {str(folder)!r}",
                    stacklevel=4,
                )
                return None
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise _held(folder, _owner(owner)) from None
            raise
        # The owner before has deleted the file after it was opened here.
        os.close(descriptor)


def _is_the_file(descriptor: int, file: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _owner(content: bytes) -> str:
    """Who has the lock, as far as its file tells; it is empty until the owner has written it."""
    try:
        owner = json.loads(content)
        return _described(str(owner["host"]), int(owner["pid"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return "its process id is not known"


def _described(host: str, pid: int) -> str:
    return f"process {pid} on {host}"


def _held(folder: Any, owner: str) -> ValueError:
    return ValueError(
        f"Another run has this folder ({owner}); wait until it has ended, or choose another folder."
        f" Received: {str(folder)!r}"
    )
