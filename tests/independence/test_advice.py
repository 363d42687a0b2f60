"""The advice at the end of a measurement, each line shown to appear where it would pay."""

import keras
import numpy as np
from keras import layers

import keras_ic

X = np.random.default_rng(0).normal(size=(2000, 8)).astype("float32")


def advice(*stack, batch_size=500):
    """What is said of a network whose moving statistics are those of its training."""
    model = keras.Sequential([keras.Input((8,)), *stack, layers.Dense(2)])
    for _ in range(60):
        model(X[:batch_size], training=True)
    return model, keras_ic.measure(model, X, batch_size=batch_size, verbose=0)


def test_nothing_is_said_of_statistics_that_fit():
    _, report = advice(layers.BatchNormalization(momentum=0.5))
    assert report.advice == report.to_dict()["advice"] == []
    assert str(report).endswith("Advice\n- None: the moving statistics are those of the data.")
    # Few values are off by chance.
    model = keras.Sequential([keras.Input((8,)), layers.BatchNormalization(), layers.Dense(2)])
    assert keras_ic.measure(model, X[:40], verbose=0).advice == []


def test_statistics_that_lag_are_to_be_recalibrated():
    bn = layers.BatchNormalization(momentum=0.999, name="slow")
    model, report = advice(layers.Dense(8, kernel_initializer="random_normal"), bn)
    (line,) = report.advice
    assert line.startswith("Recalibrate") and "slow" in line and "keras_ic.Recalibration" in line
    assert line in str(report)
    keras_ic.recalibrate(model, X, verbose=0)
    assert keras_ic.measure(model, X, verbose=0).advice == []


def test_dropout_before_a_normalization_asks_for_another_order():
    _, report = advice(
        layers.Dense(8, activation="relu"),
        layers.Dropout(0.5, name="drop"),
        layers.BatchNormalization(momentum=0.5, name="bn"),
        layers.Dropout(0.5, name="last"),
    )
    assert [line.partition(":")[0] for line in report.advice] == ["Recalibrate", "Another order"]
    assert "drop drop values that bn normalize" in report.advice[1]
    assert "last" not in report.advice[1] and "rewrite(model, rate=0.5)" in report.advice[1]


def test_a_large_rate_asks_for_a_smaller_one():
    def stack(rate):
        return (
            keras_ic.IC(rate, momentum=0.5, name="ic"),
            layers.Dense(8),
            layers.BatchNormalization(momentum=0.5, name="bn"),
        )

    _, report = advice(*stack(0.5))
    assert [line.partition(":")[0] for line in report.advice] == ["Recalibrate", "Another rate"]
    rate = float(report.advice[1].partition("A rate of ")[2].partition(" ")[0])
    assert 0.03 < rate < 0.15
    assert advice(*stack(rate / 2))[1].advice == []
