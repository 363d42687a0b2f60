"""A hundred training steps, the last of each epoch a smaller one: traced in the first epoch and
never again.
"""

import keras
import pytest


def test_retracing(entry):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras runs torch without tracing")
    model = entry.compiled()
    traces, compute_loss = [], model.compute_loss

    def counted(*arguments, **options):
        traces.append(1)
        return compute_loss(*arguments, **options)

    model.compute_loss = counted
    x, y = entry.samples(29)
    model.fit(x, y, batch_size=3, verbose=0)
    assert 1 <= len(traces) <= 4
    first = len(traces)
    model.fit(x, y, batch_size=3, initial_epoch=1, epochs=10, verbose=0)
    assert int(model.optimizer.iterations) == 100
    assert len(traces) == first
