"""Several real processes under MultiWorkerMirroredStrategy, on loopback."""

import csv
import signal

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow_only


def same(one, two, **tolerance):
    for a, b in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def alone_in(folder, settings):
    """The same training in this process, on one device."""
    from tests.distribution import job

    (folder / "alone").mkdir()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return job.main({"out": str(folder / "alone"), **settings})
    finally:
        signal.signal(signal.SIGTERM, handler)


def values(result, name):
    return [logs[name] for logs in result["logs"]]


def test_two_workers_equal_one_process(train, tmp_path):
    """With the same global batches, synchronized statistics and no dropout, in each of 18 epochs of
    three steps. The last batch has one example, so that the worker has none.
    """
    settings = {"epochs": 18, "examples": 33, "batch": 16, "rate": 0.0, "synchronized": True}
    (chief, worker), run, codes = train(2, "two", **settings)
    assert codes == [0, 0], run.text(0) + run.text(1)
    alone = alone_in(tmp_path, settings)
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        np.testing.assert_allclose(values(chief, name), values(alone, name), atol=1e-5, rtol=0)
    assert values(alone, "loss")[-1] < 0.5 * values(alone, "loss")[0]  # it has trained
    assert chief["evaluated"]["accuracy"] * 33 == pytest.approx(
        round(chief["evaluated"]["accuracy"] * 33), abs=1e-4
    )
    same(chief, alone, atol=1e-5)
    assert chief == worker
    # Only the chief shows progress and writes.
    assert "Epoch 18/18" in run.text(0) and "Epoch" not in run.text(1)
    assert (tmp_path / "two" / "best.keras").exists() and len(
        list((tmp_path / "two" / "logs" / "train").glob("events*"))
    ) == 1
    assert not (tmp_path / "two" / "log1.csv").exists()
    with open(tmp_path / "two" / "log0.csv") as file:
        assert len(list(csv.DictReader(file))) == 18


SETTINGS = {"epochs": 3, "examples": 64, "batch": 16, "every": 1}


@pytest.mark.slow(reason="starts two workers five times")
def test_killed_or_signalled_and_resumed_equals_never_stopped(train, tmp_path):
    """A worker is killed in the second epoch, then the chief, then a signal comes to a worker, then
    the checkpoint is damaged and repaired; dropout and stock BatchNormalization are on.
    """
    (unbroken, _), _, codes = train(2, "unbroken", **SETTINGS)
    assert codes == [0, 0]
    _, run, codes = train(2, "broken", kill=[1, 6], **SETTINGS)
    assert codes == [76, -9], run.text(0) + run.text(1)
    last = run.text(0).splitlines()[-1]
    assert (
        "Another worker is gone or does not answer; start the same command again" in last
        and "Received: " in last
    )
    _, run, codes = train(2, "broken", kill=[0, 7], **SETTINGS)
    assert codes == [-9, 76], run.text(0) + run.text(1)
    _, run, codes = train(2, "broken", terminate=[1, 9], **SETTINGS)
    assert codes == [75, 75], run.text(0) + run.text(1)
    checkpoint = tmp_path / "broken" / "checkpoint.keras"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-9])
    _, run, codes = train(2, "broken", **SETTINGS)
    assert codes == [1, 1]
    assert "ValueError: The checkpoint cannot be read (This is not" in run.text(0).splitlines()[-1]
    assert "cannot be read (The chief has failed" in run.text(1).splitlines()[-1]
    checkpoint.write_bytes(content)
    (chief, worker), run, codes = train(2, "broken", **SETTINGS)
    assert codes == [0, 0], run.text(0)
    same(chief, unbroken, atol=0, rtol=0)
    assert chief == worker and len(chief["logs"]) == 1  # the third epoch alone was left
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert chief["logs"][-1][name] == pytest.approx(unbroken["logs"][-1][name], rel=1e-6)


@pytest.mark.slow(reason="starts two workers of stock Keras")
def test_stock_keras_still_needs_prepare(train):
    """keras#20585. If this fails, Keras has fixed it: see which parts of
    keras_ic/distribution/keras_fit.py can go.
    """
    _, _, codes = train(2, "stock", stock=True, epochs=1)
    assert 0 not in codes, "stock `fit` works under MultiWorkerMirroredStrategy now"
