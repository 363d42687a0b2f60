"""examples/imagenet.py, the script to copy, and the report of its record."""

import pytest

from keras_ic.training import read, report
from tests.scripts import script
from tests.training.conftest import folders, tiny  # noqa: F401

pytestmark = pytest.mark.tensorflow_only


def test_it_trains_and_goes_on_and_its_record_can_be_drawn(folders, tiny, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "run"
    arguments = ["--data", folders, "--preset", "small", "--model", "Tiny", "--epochs", 1]
    arguments += ["--batch", 8, "--image-size", 32, "--strategy", "one", "--out", out]
    main = script("examples/imagenet.py").main
    assert main(list(map(str, arguments))) == 0
    assert "top-1" in capsys.readouterr().out
    record = (out / "record.jsonl").read_bytes()
    assert read(out).head["images"] == {"train": 32, "validation": 12}
    assert main(list(map(str, arguments))) == 0
    assert (out / "record.jsonl").read_bytes() == record
    pytest.importorskip("matplotlib", reason="the figure needs Matplotlib")
    (summary,) = report(out, tmp_path / "report")
    assert len(summary.curves[0]) == 1
    (figure,) = (tmp_path / "report").glob("*.png")
    assert figure.stat().st_size > 10_000
