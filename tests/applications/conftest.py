import keras
import numpy as np
import pytest


@pytest.fixture
def plain_kernels(monkeypatch):
    """Kernels of zeros, for the tests of what stands where: on JAX, random ones cost seconds of
    compiling for every new shape.
    """
    monkeypatch.setattr(
        keras.initializers.HeNormal,
        "__call__",
        lambda self, shape, dtype=None: np.zeros(shape, "float32"),
    )
