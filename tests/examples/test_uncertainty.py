import numpy as np
import pytest

from tests.scripts import script


@pytest.fixture(scope="module")
def example():
    return script("examples/uncertainty.py")


def test_calibration_error(example):
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.4, 0.6], [0.6, 0.4]])
    # Half of them at 0.6, and always right.
    assert example.calibration_error(sure, np.array([0, 0, 1, 0])) == pytest.approx(0.2)
    # Half right at 1 and at 0.6.
    assert example.calibration_error(sure, np.array([0, 1, 1, 1])) == pytest.approx(0.3)


@pytest.mark.tensorflow_only
def test_a_small_run(example, capsys):
    pytest.importorskip("sklearn")
    results = example.main(["--epochs", "3", "--samples", "5"])
    assert (
        results["clean", "usual"]["accuracy"] > 0.9
        and results["clean", "Monte-Carlo"]["accuracy"] > 0.9
    )
    assert all(
        0 <= results[key]["calibration_error"] < 0.3 for key in results if key[1] != "spread"
    )
    assert results["clean", "spread"]["wrong"] > results["clean", "spread"]["right"]
    assert capsys.readouterr().out.count("Monte-Carlo") == 2
