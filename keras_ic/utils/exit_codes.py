"""The exit codes of the command line."""

import enum


class ExitCode(enum.IntEnum):
    """How a command ended. Anything else, as 1, is a fault of the program."""

    DONE = 0
    USER_ERROR = 2  # a bad argument, missing data, a damaged file
    STOPPED = 75  # by a signal, with everything saved: the same command goes on
