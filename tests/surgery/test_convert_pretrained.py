import pytest

from tests.scripts import script


@pytest.mark.slow(reason="trains a MobileNetV2 twice")
@pytest.mark.tensorflow_only
def test_a_small_run(capsys):
    pytest.importorskip("sklearn")
    results = script("examples/convert_pretrained.py").main(["--weights", "none", "--epochs", "1"])
    assert results["before"] == results["at once after"] and results["difference"] <= 1e-4
    # So short a training beats guessing, 0.1, and no more.
    assert min(results["fine-tuned"], results["IC, fine-tuned"]) > 0.12
    assert "random weights" in capsys.readouterr().out
