"""A worker of a search on this machine: `python -m keras_ic.tuning.worker FOLDER [DATA_DIR]`, started by `Workers`."""

import pathlib
import sys

from keras_ic.data import MissingDataError
from keras_ic.experiments.command import STOPPED, stopped_by_signals
from keras_ic.tuning import description
from keras_ic.tuning.remote import RemoteOracle, role
from keras_ic.tuning.workers import work


def main(arguments: list[str]) -> int:
    """Works until there is no trial left; returns the exit code."""
    folder = pathlib.Path(arguments[0])
    found = role()
    assert found is not None
    tuner_id, address = found
    try:
        with stopped_by_signals() as stop:
            work(RemoteOracle(address, folder), tuner_id, description.read(folder), folder, arguments[1] if arguments[1:] else None, [stop], 2)
    except KeyboardInterrupt:
        return STOPPED
    except (ValueError, OSError, ImportError, MissingDataError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
