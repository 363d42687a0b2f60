import importlib.util
import pathlib

import pytest

from keras_ic import experiments

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "cifar.py"


@pytest.mark.tensorflow_only
def test_compares_the_orders_and_goes_on(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("cifar", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arguments = ["--data", "digits", "--model", "small", "--epochs", "2", "--seeds", "2", "--rate", "0.1", "--out", str(tmp_path)]
    script.main(arguments)
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| usual | 2 |" in table and "| relu-ic-conv, rate 0.1 | 2 |" in table and table in capsys.readouterr().out
    records = {path: path.read_bytes() for path in tmp_path.glob("*/record.jsonl")}
    assert len(records) == len(experiments.find(tmp_path)) == 4
    script.main(arguments)
    assert {path: path.read_bytes() for path in tmp_path.glob("*/record.jsonl")} == records
