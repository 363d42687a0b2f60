"""What the tests came to with the versions of a run, as a file of JSON; and the table that
docs/conformance.md has of these files.

pytest --outcome docs/results/runs/NAME.json     writes the file of a run
python -m tests.outcome                          brings the page up to date
"""

import importlib
import json
import pathlib
import platform
import re
import time

import keras

from keras_ic import saving
from keras_ic.version import __version__

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "conformance.md"
RUNS = PAGE.parent / "results" / "runs"
OUTCOMES = ("passed", "skipped", "failed")


def versions():
    """What runs: this package, Keras, its backend and Python."""
    backend = keras.backend.backend()
    numbers = {
        "keras_ic": __version__,
        "keras": keras.__version__,
        backend: importlib.import_module(backend).__version__,
    }
    return {**numbers, "python": platform.python_version()}


class Outcome:
    """Counts the tests of a run, in the process that reports, and writes the numbers at its end."""

    def __init__(self, path):
        self.path, self.started = path, time.time()
        self.tests: dict = {}  # the name of a test -> its outcome

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.tests[report.nodeid] = report.outcome

    def pytest_sessionfinish(self):
        counts = {name: list(self.tests.values()).count(name) for name in OUTCOMES}
        content = {"versions": versions(), **counts, "seconds": round(time.time() - self.started)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with saving.replacing(self.path) as new:
            new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(folder):
    """A row for each file of the folder."""
    lines = ["| run | versions | passed | skipped | failed |", "| --- | --- | --- | --- | --- |"]
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        lines.append(
            f"| `make {path.stem}` | {versions} | "
            + " | ".join(f"{run[name]:,}" for name in OUTCOMES)
            + " |"
        )
    return "\n".join(lines)


def page(text):
    """The page, with the table between its marks."""
    return re.sub(
        r"(<!-- runs -->\n).*?(\n<!-- end of the runs -->)",
        lambda mark: mark[1] + table(RUNS) + mark[2],
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
