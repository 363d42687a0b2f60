"""A training that SIGTERM and Ctrl-C stop between two steps, with everything saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class StopRequest:
    """Whether a signal has asked for a stop.

    Attributes:
        wanted: Boolean, whether to stop after this step.
        is_training: Boolean, whether steps are being run, so that a stop can wait for the end of
            one. Else a signal stops at once, since there is nothing to save.
    """

    def __init__(self):
        self.wanted = self.is_training = False

    def handle(self, number, frame):
        """What a signal does. Amid a training, a second Ctrl-C stops at once, and a second SIGTERM
        changes nothing; after a stop no signal does.
        """
        is_first, self.wanted = not self.wanted, True
        if self.is_training != is_first and (is_first or number == signal.SIGINT):
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def after_a_step(self) -> Iterator[None]:
        """Lets a stop wait for the end of a step while a block runs."""
        self.is_training = True
        try:
            yield
        finally:
            self.is_training = False
        if self.wanted:
            raise KeyboardInterrupt


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """Has SIGTERM and Ctrl-C ask for a stop while a block runs. In the main thread alone, since
    Python gives signals to no other.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop.handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
