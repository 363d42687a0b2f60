"""The program `keras-ic`, apart from the package, whose import takes seconds.

A signal meanwhile ends the program as it does later: by 75, without a traceback.
"""

import os
import signal
import sys

STOPPED = 75  # of keras_ic.utils.exit_codes, which cannot be imported yet


def main():
    """Runs the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    from keras_ic.program import program

    program()


def _stop(number, frame):
    # Nothing has begun. An exception would be lost in an import, or be told by it at length.
    os.write(2, b"keras-ic: stopped\n")
    os._exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main())
