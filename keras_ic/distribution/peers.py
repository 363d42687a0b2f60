"""One clear error for a worker that has lost another."""

import contextlib
import re
from collections.abc import Iterator

import keras

from keras_ic.utils.lazy_imports import tensorflow as tf


class LostPeerError(RuntimeError):
    """Another worker of the job is gone, or has not answered in time. Started again, all workers go
    on from the last checkpoint.
    """


# What JAX says, in an error of one kind or another, of a connection that was lost.
LOST = re.compile("Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|[Cc]oordination")


@contextlib.contextmanager
def peers_needed(workers: int) -> Iterator[None]:
    """Turns what a framework raises in a worker whose peer is gone, several kinds of error in many
    lines, into `LostPeerError`.
    """
    try:
        yield
    except Exception as error:
        if workers == 1 or not _tells_of_a_lost_peer(error):
            raise
        message = str(getattr(error, "message", error))
        reason = message.partition("aborted by: ")[2] or message
        raise LostPeerError(
            "Another worker is gone or does not answer; start the same command again on all"
            " workers, and training goes on from the last checkpoint. Received:"
            f" {reason.splitlines()[0]}"
        ) from error


def _tells_of_a_lost_peer(error: Exception) -> bool:
    if keras.backend.backend() == "jax":
        return isinstance(error, (ValueError, RuntimeError)) and LOST.search(str(error)) is not None
    return isinstance(
        error,
        (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
        ),
    )
