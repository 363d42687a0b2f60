"""Which tests a run takes: the plain suite leaves out what is marked slow, and checks the core of
the registry of models.
"""

import enum

import pytest


class Registry(enum.IntEnum):
    """How many models the properties of `tests/conformance` are checked on; each includes those
    before it.
    """

    CORE = 0
    SMALL = 1
    COMPLETE = 2

    @classmethod
    def chosen(cls, name, slow):
        """The one of this name; without a name, that of the plain suite or of the slow one."""
        return cls[name.upper()] if name else cls.SMALL if slow else cls.CORE


def skips(item, backend, slow):
    """The reasons for which a run on `backend`, with the slow tests or without, skips a test."""
    if backend != "tensorflow" and item.get_closest_marker("tensorflow_only"):
        yield f"needs the TensorFlow backend, this run is on {backend}"
    marker = item.get_closest_marker("slow")
    if marker and "reason" not in marker.kwargs:
        raise pytest.UsageError(
            f"Say why the test is slow: @pytest.mark.slow(reason=...). Received: {item.nodeid}"
        )
    if marker and not slow:
        yield f"slow: {marker.kwargs['reason']} (--slow runs it)"
