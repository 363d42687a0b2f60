"""One clear error for a worker that has lost another."""

import contextlib
from collections.abc import Iterator

from keras_ic.utils.lazy_imports import tensorflow as tf


class LostPeerError(RuntimeError):
    """Another worker of the job is gone, or has not answered in time. Started again, all workers go
    on from the last backup.
    """


@contextlib.contextmanager
def peers_needed(workers: int) -> Iterator[None]:
    """Turns what TensorFlow raises in a worker whose peer is gone, several kinds of error in many
    lines, into `LostPeerError`.
    """
    gone = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    )
    try:
        yield
    except gone as error:
        if workers == 1:
            raise
        reason = str(error.message).partition("aborted by: ")[2] or str(error.message)
        raise LostPeerError(
            "Another worker is gone or does not answer; start the same command again on all"
            " workers, and training goes on from the last backup. Received:"
            f" {reason.splitlines()[0]}"
        ) from error
