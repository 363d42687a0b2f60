"""examples/imagenet.py, the script to copy, and the figure of a record."""

import importlib.util
import json
import pathlib

import pytest

pytestmark = pytest.mark.tensorflow_only
ROOT = pathlib.Path(__file__).parents[2]


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_trains_and_goes_on_and_its_record_can_be_drawn(folders, tiny, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["--data", str(folders), "--recipe", "small", "--model", "Tiny", "--epochs", "2", "--batch", "8", "--image-size", "32"]
    arguments += ["--strategy", "one", "--out", str(out)]
    main = script(ROOT / "examples" / "imagenet.py").main
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "top-1" in shown and "top-5 100.00 %" in shown
    record = (out / "record.jsonl").read_bytes()
    assert json.loads(record.splitlines()[0])["images"] == {"train": 32, "validation": 12}
    assert main(arguments) == 0 and (out / "record.jsonl").read_bytes() == record
    pytest.importorskip("matplotlib", reason="the figure needs Matplotlib").use("Agg")
    script(ROOT / "benchmarks" / "curves.py").main(out / "record.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
