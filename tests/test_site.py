"""The site, which `make docs` builds: its reference, its formulas, what its pages are made from."""

import importlib
import inspect
import re
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


def test_the_page_of_the_notebook_has_its_cells():
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    notebook = script("docs/notebook.py")
    page = notebook.PAGE.read_text(encoding="utf-8")
    title, *cells = notebook.sources(nbformat.read(notebook.NOTEBOOK, 4))
    places = [page.find(part) for part in (*title.split("\n\n"), *cells)]
    assert -1 not in places and places == sorted(places), "run `python docs/notebook.py`"


@pytest.mark.skipif(not SITE.exists(), reason="the site is not built; `make docs` does it")
def test_formulas_are_set_and_nothing_is_loaded_from_other_hosts():
    pages = list(SITE.parent.glob("**/*.html"))
    assert (SITE.parent / "idea.html").read_text(encoding="utf-8").count("<math") >= 4
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<(script|img|link)[^>]*(src|href)="?(https?:)?//', text), page
        assert r"\operatorname" not in text, page
