"""A worker of a search: runs one trial after the other.

`python -m keras_ic.tuning.worker FOLDER TRIALS [DATA_DIR]` is one on this machine, started by
`Workers`.
"""

import math
import os
import pathlib
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from keras_ic.training.datasets import MissingDataError
from keras_ic.training.stopping import stopped_by_signals
from keras_ic.tuning import description
from keras_ic.tuning.description import Search
from keras_ic.tuning.remote import LeaseKeeper, RemoteQueue, role
from keras_ic.tuning.trial import run_trial
from keras_ic.tuning.trial_queue import DONE, WAIT, LeaseLostError
from keras_ic.utils.exit_codes import ExitCode

RENEW = 3  # the exit code of a worker that has done its number of trials, and has no other running


def work(
    queue: Any,
    worker: str,
    search: Search,
    folder: pathlib.Path,
    data_dir: Any = None,
    callbacks: Sequence = (),
    verbose: Any = 0,
    at_most: float = math.inf,
) -> bool:
    """Runs one trial after the other until there is none left, or it has run `at_most`; says which
    by True or False.
    """
    done = 0
    while done < at_most:
        task = queue.next(worker)
        if task == DONE:
            return True
        if task == WAIT:
            time.sleep(0.5)
            continue
        try:
            with LeaseKeeper(queue, worker, task) as lease:
                run_trial(
                    search,
                    task.trial,
                    task.values,
                    folder,
                    data_dir,
                    lease.confirm,
                    [*callbacks, lease],
                    verbose,
                )
            queue.end(worker, task)
        except LeaseLostError as error:
            print(" ".join(str(error).split()), file=sys.stderr, flush=True)
        done += 1
    return False


def main(arguments: list[str]) -> int:
    """Works until there is no trial left; returns the exit code."""
    folder, trials = pathlib.Path(arguments[0]), int(arguments[1])
    data_dir = arguments[2] if arguments[2:] else None
    threading.Thread(target=_end_with_the_chief, daemon=True).start()
    found = role()
    assert found is not None
    worker, address = found
    try:
        with stopped_by_signals():
            queue, search = RemoteQueue(address, folder), description.read(folder)
            is_done = work(queue, worker, search, folder, data_dir, (), 2, trials)
    except KeyboardInterrupt:
        return ExitCode.STOPPED
    except (ValueError, OSError, ImportError, MissingDataError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return ExitCode.USER_ERROR
    return ExitCode.DONE if is_done else RENEW


def _end_with_the_chief() -> None:
    """Ends this process at once when the one that started it is gone: its trial is as safe as after
    any kill.
    """
    # Not through `sys.stdin`, whose lock an interpreter that ends cannot get: it would abort.
    os.read(0, 1)
    print(
        "The chief of the search is gone; give its command again, and the search goes on.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(ExitCode.USER_ERROR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
