import importlib.util
import pathlib

import numpy as np
import pytest

PATH = pathlib.Path(__file__).parents[2] / "examples" / "uncertainty.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("uncertainty_example", PATH)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_calibration_error(script):
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.4, 0.6], [0.6, 0.4]])
    assert script.calibration_error(sure, np.array([0, 0, 1, 0])) == pytest.approx(0.2)  # half of them at 0.6, and always right
    assert script.calibration_error(sure, np.array([0, 1, 1, 1])) == pytest.approx(0.3)  # half right at 1 and at 0.6


@pytest.mark.tensorflow_only
def test_a_small_run(script, capsys):
    pytest.importorskip("sklearn")
    results = script.main(["--epochs", "3", "--samples", "5"])
    assert results["clean", "usual"]["accuracy"] > 0.9 and results["clean", "Monte-Carlo"]["accuracy"] > 0.9
    assert all(0 <= results[key]["calibration_error"] < 0.3 for key in results if key[1] != "spread")
    assert results["clean", "spread"]["wrong"] > results["clean", "spread"]["right"]
    assert capsys.readouterr().out.count("Monte-Carlo") == 2
