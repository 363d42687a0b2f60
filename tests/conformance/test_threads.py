"""`predict` from eight threads at once gives each what it gives one alone."""

import threading

import numpy as np
import pytest

THREADS = 8


@pytest.mark.compiles
def test_threads(entry):
    model = entry.built()
    batches = [entry.samples(4, seed)[0] for seed in range(THREADS)]
    expected = [model.predict(x, verbose=0) for x in batches]
    results: list = [None] * THREADS
    barrier = threading.Barrier(THREADS)

    def work(index):
        barrier.wait()
        results[index] = [model.predict(batches[index], verbose=0) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found, want in zip(results, expected, strict=True):
        assert found is not None
        for predictions in found:
            np.testing.assert_allclose(predictions, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())
