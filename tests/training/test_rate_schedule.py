import keras
import numpy as np
import pytest

import keras_ic
from keras_ic.training import TrainingConfig, network
from keras_ic.training.rate_schedule import RateSchedule, ic_layers, rates_over_depth


def small(**values):
    return network(TrainingConfig(data="digits", model="small", **values), (8, 8, 1), 10)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.2] * 20),
        ("anneal", np.repeat(0.2 * (1 - np.arange(10) / 9), 2)),
        ("grow", np.repeat(0.02 * np.arange(1, 11), 2)),
    ],
)
def test_rates_over_the_epochs(schedule, expected):
    model = small(rate=0.2)
    model.compile("sgd")
    callback = RateSchedule(schedule, 20, [0.2, 0.1, 0.0])
    callback.set_model(model)
    seen = []
    for epoch in range(20):
        callback.on_epoch_begin(epoch)
        seen.append([layer.rate for layer in ic_layers(model)])
    np.testing.assert_allclose(seen, np.outer(expected, [1, 0.5, 0]), atol=1e-12)


def test_rates_by_depth():
    assert rates_over_depth(TrainingConfig(rate=0.1), 3) == [0.1] * 3
    np.testing.assert_allclose(
        rates_over_depth(TrainingConfig(rate=0.1, rate_depth="rising"), 5),
        [0, 0.05, 0.1, 0.15, 0.2],
    )
    np.testing.assert_allclose(
        rates_over_depth(TrainingConfig(rate=0.1, rate_depth="falling"), 3), [0.2, 0.1, 0]
    )
    assert [layer.rate for layer in ic_layers(small(rate=0.1, rate_depth="rising"))] == [
        0,
        0.1,
        0.2,
    ]
    np.testing.assert_allclose(
        rates_over_depth(TrainingConfig(rate_depth="linear", rates=(0.2, 0)), 3), [0.2, 0.1, 0]
    )
    assert rates_over_depth(TrainingConfig(rate_depth="stages", rates=(0, 0.1)), 4) == [
        0,
        0,
        0.1,
        0.1,
    ]
    assert rates_over_depth(TrainingConfig(rate_depth="stages", rates=(0.3, 0.1)), 1) == [0.3]


def test_ic_layers_of_nested_models_in_their_order():
    inner = keras.Sequential([keras.Input((4,)), keras_ic.IC(name="b"), keras.layers.Dense(4)])
    model = keras.Sequential(
        [keras.Input((4,)), keras_ic.IC(name="a"), inner, keras_ic.IC(name="c")]
    )
    assert sorted(layer.name for layer in ic_layers(model)) == ["a", "b", "c"]
