"""The process of the command line: its streams, its signals and its exit code."""

import logging
import os
import signal
import sys
from typing import NoReturn

from keras_ic import cli
from keras_ic.training.stopping import StopRequest
from keras_ic.utils.exit_codes import ExitCode


def program() -> NoReturn:
    """Runs the command line with the arguments of the process, and ends the process.

    A closed stdout or stderr is as good as any, and an encoding without a character shows another
    one in its place. A signal ends a verb that saves nothing as it ends the others, with 75; the
    next signal does not change the exit code any more.

    Example:

    ```python
    import sys
    from keras_ic.program import program

    sys.argv = ["keras-ic", "--version"]
    try:
        program()
    except SystemExit as end:
        assert end.code == 0
    ```
    """
    mend_streams()
    # It warns of retracing where a grid trains one network after the other.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    stop, numbers = StopRequest(), (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop.handle) for number in numbers]
    try:
        code = cli.main()
    except KeyboardInterrupt:
        print("keras-ic: stopped", file=sys.stderr)
        code = ExitCode.STOPPED
    finally:
        if stop.wanted:
            # Libraries take a while to end; a signal meanwhile would be the exit code.
            before = [signal.SIG_IGN] * len(numbers)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    sys.exit(code)


def mend_streams() -> None:
    """Gives a process whose stdout or stderr is closed another one, and has both show what their
    encoding lacks as something else.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
