import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).parents[2] / "examples" / "convert_pretrained.py"


@pytest.mark.tensorflow_only
def test_a_small_run(capsys):
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("convert_pretrained", PATH)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    results = script.main(["--weights", "none", "--epochs", "1"])
    assert results["before"] == results["at once after"] and results["difference"] <= 1e-4
    assert min(results["fine-tuned"], results["IC, fine-tuned"]) > 0.12  # so short a training beats guessing, 0.1, and no more
    assert "random weights" in capsys.readouterr().out
