"""The example does its job, and the docs show what its committed record holds."""

import json

import pytest

from tests.scripts import ROOT, script

RECORD = ROOT / "docs" / "results" / "independence" / "record.json"


@pytest.fixture(scope="module")
def example():
    return script("examples/independence.py")


@pytest.mark.tensorflow_only
def test_the_whole_job_in_small(example, tmp_path, capsys, monkeypatch):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(example, "KEEP", (1.0, 0.7))
    assert (
        example.main(["--epochs", "1", "--seeds", "1", "--rows", "20000", "--out", str(tmp_path)])
        == 0
    )
    record = json.loads((tmp_path / "record.json").read_text())
    assert example.table(record) in capsys.readouterr().out
    assert (tmp_path / "theorem.png").read_bytes().startswith(b"\x89PNG")
    left = {
        (form, name): example.ratios(record, form, name)[1][0]
        for form in example.FORMS
        for name in ("correlation", "mutual_information")
    }
    assert abs(left["normalized", "correlation"] - 0.7) < 0.02
    assert abs(left["normalized", "mutual_information"] - 0.49) < 0.05
    assert left["shifted", "correlation"] < 0.5
    assert abs(left["shifted", "mutual_information"] - 0.49) < 0.05
    assert left["rectified", "correlation"] < 0.67
    assert left["rectified", "mutual_information"] < 0.45


def test_the_docs_show_the_table_of_the_record(example):
    assert (
        example.table(json.loads(RECORD.read_text()))
        in (ROOT / "docs" / "independence.md").read_text()
    )


@pytest.mark.parametrize("wrong", [["--epochs", "0"], ["--seeds", "few"], ["--rows", "1"]])
def test_wrong_arguments_end_in_one_line(example, wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        example.main(wrong)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err.splitlines()[-1]
