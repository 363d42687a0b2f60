"""`predict` from eight threads at once gives each what it gives one alone.

On JAX, `predict` takes the weights of any model away while it runs (Keras 3.15), so that another
thread finds none; there, threads call the model.
"""

import threading

import keras
import numpy as np

from tests.autodiff import to_numpy

THREADS = 8


def predicted(model, x):
    return (
        to_numpy(model(x, training=False))
        if keras.backend.backend() == "jax"
        else model.predict(x, verbose=0)
    )


def test_threads(entry):
    model = entry.built()
    batches = [entry.samples(4, seed)[0] for seed in range(THREADS)]
    expected = [predicted(model, x) for x in batches]
    results: list = [None] * THREADS
    barrier = threading.Barrier(THREADS)

    def work(index):
        barrier.wait()
        results[index] = [predicted(model, batches[index]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found, want in zip(results, expected, strict=True):
        assert found is not None
        for predictions in found:
            np.testing.assert_allclose(predictions, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())
