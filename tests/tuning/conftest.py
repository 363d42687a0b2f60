import pytest

pytest.importorskip("keras_tuner", reason="needs keras-tuner")


@pytest.fixture
def quick(monkeypatch):
    """Searches whose trials train nothing, in this process and in its workers."""
    from keras_ic.tuning import trial, workers
    from tests.tuning import quick

    monkeypatch.setattr(trial.training, "run", quick.run)
    monkeypatch.setattr(workers, "WORKER", "tests.tuning.quick")
    return monkeypatch
