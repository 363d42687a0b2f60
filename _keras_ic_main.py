"""The program `keras-ic`, apart from the package, whose import takes seconds.

A signal meanwhile ends the program as it does later: by 75, without a traceback.
"""

import os
import re
import signal
import sys
import tempfile

STOPPED = 75  # of keras_ic.utils.exit_codes, which cannot be imported yet
LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# What TensorFlow writes by itself while it is imported, before its logging has a level.
LOG_LINE = re.compile(
    rb"(WARNING: All log messages before absl::InitializeLog|[IW]\d{4} \d\d:\d\d:\d|"
    rb"\d{4}-\d\d-\d\d .*: [IW] |To enable the following instructions:)"
)


def main():
    """Runs the command line."""
    terminal = os.dup(2)

    def stop(number, frame):
        # Nothing has begun. An exception would be lost in an import, or be told by it at length.
        os.write(terminal, b"keras-ic: stopped\n")
        os._exit(STOPPED)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if LEVEL in os.environ:  # somebody wants the lines, or has chosen which
        from keras_ic.program import program
    else:
        os.environ[LEVEL] = "2"
        with tempfile.TemporaryFile() as written:
            os.dup2(written.fileno(), 2)
            try:
                from keras_ic.program import program
            finally:
                os.dup2(terminal, 2)
                written.seek(0)
                for line in written:
                    if not LOG_LINE.match(line):
                        os.write(2, line)
    program()


if __name__ == "__main__":
    sys.exit(main())
