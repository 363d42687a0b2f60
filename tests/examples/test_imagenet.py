"""examples/imagenet.py, the script to copy, and the report of its record."""

import json

import pytest

from keras_ic.experiments import report
from tests.scripts import script

pytestmark = pytest.mark.tensorflow_only


def test_the_script_trains_and_goes_on_and_its_record_can_be_drawn(folders, tiny, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [
        "--data",
        str(folders),
        "--recipe",
        "small",
        "--model",
        "Tiny",
        "--epochs",
        "2",
        "--batch",
        "8",
        "--image-size",
        "32",
    ]
    arguments += ["--strategy", "one", "--out", str(out)]
    main = script("examples/imagenet.py").main
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "top-1" in shown and "top-5 100.00 %" in shown
    record = (out / "record.jsonl").read_bytes()
    assert json.loads(record.splitlines()[0])["images"] == {"train": 32, "validation": 12}
    assert main(arguments) == 0 and (out / "record.jsonl").read_bytes() == record
    pytest.importorskip("matplotlib", reason="the figure needs Matplotlib")
    (summary,) = report(out, tmp_path / "report")
    assert summary.top5 == [100] and len(summary.curves[0]) == 2
    (figure,) = (tmp_path / "report").glob("*.png")
    assert figure.stat().st_size > 10_000
