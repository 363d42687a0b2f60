import pytest

from keras_ic import training
from tests.scripts import script


@pytest.mark.tensorflow_only
def test_compares_the_orders_and_goes_on(tmp_path, capsys):
    main = script("examples/cifar.py").main
    arguments = [
        "--data",
        "digits",
        "--model",
        "small",
        "--epochs",
        "2",
        "--seeds",
        "2",
        "--rate",
        "0.1",
        "--out",
        str(tmp_path),
    ]
    main(arguments)
    table = (tmp_path / "report" / "table.md").read_text()
    assert (
        "| conv-bn-relu | 2 |" in table
        and "| relu-ic-conv, rate 0.1 | 2 |" in table
        and table in capsys.readouterr().out
    )
    records = {path: path.read_bytes() for path in tmp_path.glob("*/record.jsonl")}
    assert len(records) == len(training.find(tmp_path)) == 4
    main(arguments)
    assert {path: path.read_bytes() for path in tmp_path.glob("*/record.jsonl")} == records
