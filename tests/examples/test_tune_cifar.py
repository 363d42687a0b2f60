import pytest

from tests.scripts import script

pytest.importorskip("keras_tuner", reason="needs keras-tuner")


@pytest.mark.slow(reason="runs two searches twice")
@pytest.mark.tensorflow_only
def test_searches_both_orders_and_goes_on(tmp_path, capsys):
    main = script("examples/tune_cifar.py").main
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
        "1",
        "--seeds",
        "1",
        "--tuner",
        "random",
        "--workers",
        "0",
    ]
    main([*arguments, "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if "of the test images" in line] == [
        "conv-bn-relu:",
        "relu-ic-conv:",
    ]
    assert shown.count("keras-ic train") == 2 and (tmp_path / "relu-ic-conv" / "table.md").exists()
    records = {path: path.read_bytes() for path in tmp_path.glob("*/trials.jsonl")}
    main([*arguments, "--out", str(tmp_path)])
    assert {path: path.read_bytes() for path in tmp_path.glob("*/trials.jsonl")} == records
    assert shown.splitlines()[-4:] == capsys.readouterr().out.splitlines()[-4:]
