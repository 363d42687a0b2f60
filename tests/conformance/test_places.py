"""Where the IC layers of networks of many kinds stand: as written down by hand."""

import numpy as np
import pytest

import keras_ic
from keras_ic.surgery.graph import read
from tests.conformance.networks import NETWORKS
from tests.surgery import models


def places(model):
    """Of each IC layer its path, what it reads, and its rate where that is another than 0.05."""
    found = set()
    for graph, call, path in read(model).walk():
        if isinstance(call.operation, keras_ic.IC):
            before, rate = graph.producer(call.inputs[0]), call.operation.rate
            name = "input" if before is None else before.operation.name
            found.add(f"{path}: {name}" + ("" if rate == 0.05 else f" {rate:g}"))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_places(name):
    network = NETWORKS[name]
    model = models.randomize(network.make())
    rewritten = keras_ic.rewrite(model, weights="preserve")
    assert places(rewritten) == set(network.places.split("; "))
    x = np.random.default_rng(0).integers(0, 7, (5, *network.shape)).astype("float32")
    for made in (rewritten, keras_ic.fold(model)):
        np.testing.assert_allclose(
            models.outputs(made, x)[0], models.outputs(model, x)[0], rtol=1e-3, atol=1e-4
        )
