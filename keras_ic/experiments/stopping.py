"""A training that SIGTERM and Ctrl-C stop between two steps."""

import contextlib
import signal

import keras

STOPPED = 75  # the exit code after a signal, with everything saved: the same command resumes


class _Stop(keras.callbacks.Callback):
    """Ends the training between two steps once a signal has come."""

    def __init__(self):
        super().__init__()
        self.has_come = False

    def on_train_batch_end(self, batch, logs=None):
        if self.has_come:
            raise KeyboardInterrupt

    on_test_batch_end = on_train_batch_end


@contextlib.contextmanager
def stopped_by_signals():
    """Has SIGTERM do what Ctrl-C does, and makes both certain; gives the callback to train with."""
    stop = _Stop()

    def handle(number, frame):
        # The exception is lost where the signal meets Python code that TensorFlow calls, such as a
        # finalizer; hence the callback.
        stop.has_come = True
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
