"""Every test of this folder with an argument `entry` is run on every entry of the registry; the
file it stands in names the property.

pytest tests/conformance                         the core of the registry
pytest tests/conformance --registry small        what `make test-all` takes
pytest tests/conformance --registry complete --matrix FILE.json
                                                 all of it, and the matrix of what came out
"""

import pathlib
import re
import time

import pytest

from tests.conformance.matrix import Matrix
from tests.conformance.registry import BACKEND, ENTRIES
from tests.selection import Registry


def pytest_addoption(parser):
    group = parser.getgroup("conformance")
    group.addoption(
        "--entries",
        metavar="REGEX",
        default="",
        help="those alone in whose kind and name, as `network ResNet 8`, this is found",
    )
    group.addoption(
        "--matrix", metavar="FILE.json", type=pathlib.Path, help="add what came out to this file"
    )


def pytest_configure(config):
    config.pluginmanager.register(
        Gatherer(config.getoption("--matrix", None)), "conformance-gatherer"
    )


def pytest_generate_tests(metafunc):
    if "entry" in metafunc.fixturenames:
        level = metafunc.config.registry
        if level == Registry.SMALL and BACKEND == "jax":
            level = Registry.CORE  # JAX compiles every operation for every shape.
        wanted = re.compile(metafunc.config.getoption("--entries", ""))
        chosen = [
            entry
            for entry in ENTRIES.values()
            if entry.level <= level and wanted.search(f"{entry.kind} {entry.name}")
        ]
        metafunc.parametrize("entry", chosen, ids=str)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if "entry" in getattr(getattr(item, "callspec", None), "params", {}):
        entry = item.callspec.params["entry"]
        report.conformance = [entry.kind, entry.name, item.path.stem.removeprefix("test_")]
    return report


class Gatherer:
    """Takes up the results of a run, in the process that reports; writes them now and then, so that
    a run that is stopped keeps them.
    """

    def __init__(self, path):
        self.path = path
        self.before = Matrix.so_far(path)
        self.results: list = []  # (kind, entry, property, outcome, reason)
        self.started = self.written = time.time()

    def matrix(self):
        # From what was there before, each time: a cell of several tests may be half done at the
        # last writing.
        matrix = Matrix(self.before.versions, self.before.cells, self.before.seconds)
        matrix.add(self.results, time.time() - self.started)
        return matrix

    def pytest_runtest_logreport(self, report):
        if hasattr(report, "conformance") and (report.when == "call" or report.outcome != "passed"):
            reason = report.longrepr[2].removeprefix("Skipped: ") if report.skipped else ""
            self.results.append((*report.conformance, report.outcome, reason))

    def pytest_runtest_logfinish(self):
        if self.path is not None and self.results and time.time() - self.written > 60:
            self.matrix().write(self.path)
            self.written = time.time()

    def pytest_terminal_summary(self, terminalreporter, config):
        shown = self.matrix()
        if shown.cells:
            terminalreporter.section("conformance")
            is_long = self.path is not None or config.getoption("verbose") > 0
            terminalreporter.write_line(shown.table() if is_long else shown.summary())
        if self.path is not None and self.results:
            shown.write(self.path)
