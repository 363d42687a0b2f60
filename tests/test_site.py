"""The reference of the built site has every public name. `make docs` builds it; `make test` too."""

import importlib
import inspect
import zlib

import pytest

import keras_ic
from tests.scripts import ROOT, script

SITE = ROOT / "site" / "objects.inv"
PACKAGES = (
    "",
    ".applications",
    ".distribution",
    ".independence",
    ".layers",
    ".saving",
    ".surgery",
    ".training",
    ".training.datasets",
    ".tuning",
    ".uncertainty",
)


def public_names():
    """The functions and classes of the packages that a user meets."""
    for package in PACKAGES:
        module = importlib.import_module(f"keras_ic{package}")
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        ]
        for name in names:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{module.__name__}.{name}"


@pytest.mark.skipif(not SITE.exists(), reason="the site is not built; `make docs` does it")
def test_the_reference_has_every_public_name():
    _, _, _, _, packed = SITE.read_bytes().split(b"\n", 4)
    found = {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}
    wanted = set(public_names())
    assert {"keras_ic.IC", "keras_ic.plan", "keras_ic.fold"} <= wanted
    assert not wanted - found


@pytest.mark.parametrize(
    "file, line", [("mkdocs.yml", "copyright: keras_ic {}"), ("CITATION.cff", "version: {}")]
)
def test_the_version_is_that_of_the_package(file, line):
    assert line.format(keras_ic.__version__) in (ROOT / file).read_text().splitlines()


def test_the_page_of_the_verbs_is_that_of_the_parser():
    verbs = script("docs/verbs.py")
    assert verbs.PAGE.read_text(encoding="utf-8") == verbs.page(), "run `python docs/verbs.py`"
