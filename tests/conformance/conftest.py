"""Every test of this folder with an argument `entry` is run on every entry of the registry; the file it stands in names the property.

pytest tests/conformance                                            a small selection of the registry
pytest tests/conformance --registry complete --matrix FILE.json     all of it, and the matrix of what came out
"""

import pathlib
import time

import pytest

from tests.conformance.matrix import Matrix
from tests.conformance.registry import ENTRIES


def pytest_addoption(parser):
    group = parser.getgroup("conformance")
    group.addoption("--registry", default="selected", choices=["selected", "complete"], help="which entries of the registry are checked")
    group.addoption("--matrix", metavar="FILE.json", type=pathlib.Path, help="add what came out to this file, and to a table in Markdown beside it")


def pytest_configure(config):
    config.addinivalue_line("markers", "compiles: compiles a training step for each entry, so that the plain suite takes fewer of them")


def pytest_generate_tests(metafunc):
    if "entry" in metafunc.fixturenames:
        complete = metafunc.config.getoption("--registry", "selected") == "complete"
        level = 2 if complete else 0 if metafunc.definition.get_closest_marker("compiles") else 1
        chosen = [entry for entry in ENTRIES.values() if entry.level <= level]
        metafunc.parametrize("entry", chosen, ids=str)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if "entry" in getattr(getattr(item, "callspec", None), "params", {}):
        entry = item.callspec.params["entry"]
        report.conformance = [entry.kind, entry.name, item.path.stem.removeprefix("test_")]
    return report


results: list = []  # (kind, entry, property, outcome, reason), of the process that reports
started = time.time()


def pytest_runtest_logreport(report):
    if hasattr(report, "conformance") and (report.when == "call" or report.outcome != "passed"):
        reason = report.longrepr[2].removeprefix("Skipped: ") if report.skipped else ""
        results.append((*report.conformance, report.outcome, reason))


def pytest_terminal_summary(terminalreporter, config):
    if not results:
        return
    path = config.getoption("--matrix", None)
    matrix = Matrix.read(path) if path is not None and path.exists() else Matrix.new()
    matrix.add(results, time.time() - started)
    if path is not None:
        matrix.write(path)
    terminalreporter.section("conformance")
    terminalreporter.write_line(matrix.table() if path is not None or config.getoption("verbose") > 0 else matrix.summary())
