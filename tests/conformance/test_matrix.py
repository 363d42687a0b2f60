"""The matrix: what a cell is, and how runs are put together."""

import json

import pytest

from tests.conformance.matrix import PAGES, Matrix, page

MARKS = "<!-- matrix of tensorflow -->", "<!-- summaries -->"
RUN = [
    ("layer", "IC, default", "modes", "passed", ""),
    ("layer", "IC, default", "precision", "skipped", "no float64"),
    ("layer", "IC, default", "precision", "passed", ""),
    ("layer", "IC, rate 0", "modes", "passed", ""),
    ("layer", "IC, rate 0", "modes", "failed", ""),
    ("layer", "IC, rate 0", "precision", "skipped", "no float64"),
]


def test_a_cell_is_the_worst_of_its_tests_and_a_skip_where_nothing_applies():
    matrix = Matrix.new()
    matrix.add(RUN, 2.0)
    table = matrix.table()
    assert "| IC, default | ✓ | ✓ |" in table
    assert "| IC, rate 0 | NO | - (1) |" in table
    assert table.endswith("\n1. no float64")
    assert matrix.summary().startswith(
        "2 models, 2 properties: 2 passed, 1 not applicable, 1 failed, 0 not run ("
    )


def test_a_later_run_replaces_its_cells_and_keeps_the_others(tmp_path):
    path = tmp_path / "matrix.json"
    matrix = Matrix.new()
    matrix.add(RUN, 2.0)
    matrix.write(path)
    later = Matrix.so_far(path)
    later.add([("layer", "IC, rate 0", "modes", "passed", "")], 3.0)
    later.write(path)
    assert "| IC, rate 0 | ✓ | - (1) |" in Matrix.read(path).table()
    assert Matrix.read(path).seconds == 5
    path.write_text(
        path.read_text().replace(f'"keras": "{matrix.versions["keras"]}"', '"keras": "3.0"')
    )
    assert Matrix.so_far(path).cells == {}  # other versions, another matrix
    assert json.loads(path.read_text())["cells"] == later.cells


@pytest.mark.tensorflow_only  # whose registry has every entry
@pytest.mark.parametrize(("path", "mark"), list(zip(PAGES, MARKS, strict=True)))
def test_the_pages_show_the_matrices_as_they_are(path, mark):
    text = path.read_text(encoding="utf-8")
    assert mark in text
    assert page(text) == text  # else run `python -m tests.conformance.matrix`
