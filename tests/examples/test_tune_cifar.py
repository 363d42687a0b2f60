import importlib.util
import pathlib

import pytest

pytest.importorskip("keras_tuner", reason="needs keras-tuner")
SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "tune_cifar.py"


@pytest.mark.tensorflow_only
def test_searches_both_orders_and_goes_on(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("tune_cifar", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arguments = [
        "--data",
        "digits",
        "--model",
        "small",
        "--train-size",
        "64",
        "--epochs",
        "1",
        "--trials",
        "2",
        "--seeds",
        "1",
        "--tuner",
        "random",
        "--workers",
        "0",
    ]
    script.main([*arguments, "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if "of the test images" in line] == ["usual:", "ic:"]
    assert shown.count("keras-ic train") == 2 and (tmp_path / "ic" / "rates.png").exists()
    records = {path: path.read_bytes() for path in tmp_path.glob("*/trials.jsonl")}
    script.main([*arguments, "--out", str(tmp_path)])
    assert {path: path.read_bytes() for path in tmp_path.glob("*/trials.jsonl")} == records
    assert shown.splitlines()[-4:] == capsys.readouterr().out.splitlines()[-4:]
