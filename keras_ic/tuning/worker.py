"""A worker of a search on this machine: `python -m keras_ic.tuning.worker FOLDER TRIALS
[DATA_DIR]`, started by `Workers`.
"""

import os
import pathlib
import sys
import threading

from keras_ic.training.datasets import MissingDataError
from keras_ic.training.stopping import stopped_by_signals
from keras_ic.tuning import description
from keras_ic.tuning.remote import RemoteOracle, role
from keras_ic.tuning.workers import RENEW, work
from keras_ic.utils.exit_codes import ExitCode


def main(arguments: list[str]) -> int:
    """Works until there is no trial left; returns the exit code."""
    folder, trials, data_dir = (
        pathlib.Path(arguments[0]),
        int(arguments[1]),
        arguments[2] if arguments[2:] else None,
    )
    threading.Thread(target=_end_with_the_chief, daemon=True).start()
    found = role()
    assert found is not None
    tuner_id, address = found
    try:
        with stopped_by_signals():
            is_done = work(
                RemoteOracle(address, folder),
                tuner_id,
                description.read(folder),
                folder,
                data_dir,
                (),
                2,
                trials,
            )
    except KeyboardInterrupt:
        return ExitCode.STOPPED
    except (ValueError, OSError, ImportError, MissingDataError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0 if is_done else RENEW


def _end_with_the_chief() -> None:
    """Ends this process at once when the one that started it is gone: its trial is as safe as after
    any kill.
    """
    sys.stdin.buffer.read()
    print(
        "The chief of the search is gone; give its command again, and the search goes on.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
