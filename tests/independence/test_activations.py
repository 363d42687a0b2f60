"""What counts as an input of a weight layer: its axes, masks, padding and positions."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.independence import measuring
from keras_ic.independence.activations import input_axes
from keras_ic.independence.running_covariance import RunningCovariance
from tests.independence.test_measure import correlation_of, images, rows_of


@pytest.mark.parametrize(
    "layer,shape,axes",
    [
        (layers.Dense(2), (3, 4, 5), [2]),
        (layers.Conv1D(2, 1), (3, 4, 5), [2]),
        (layers.DepthwiseConv2D(1), (3, 4, 5, 6), [3]),
        (layers.SeparableConv2D(2, 1, data_format="channels_first"), (3, 4, 5, 6), [1]),
        (
            layers.TimeDistributed(layers.Conv1D(2, 1, data_format="channels_first")),
            (3, 4, 5, 6),
            [2],
        ),
        (layers.SpectralNormalization(layers.Dense(2)), (3, 4), [1]),
        (layers.EinsumDense("abc,cd->abd", (None, 2)), (3, 4, 5), [2]),
        (layers.EinsumDense("abhd,hdo->abo", (None, 2)), (3, 4, 5, 6), [2, 3]),
        (layers.EinsumDense("...x,xy->...y", 2), (3, 4, 5), [2]),
        (layers.EinsumDense("abc,bd->adc", (2, None)), (3, 4, 5), [1]),
    ],
)
def test_the_channel_axes(layer, shape, axes):
    assert input_axes(layer, len(shape)) == axes


def test_channels_on_several_axes_or_not_the_last():
    einsum = layers.EinsumDense("ahtd,hdo->ato", (None, 2), name="einsum")
    model = keras.Sequential([keras.Input((2, 5, 3)), einsum, layers.Dense(1)])
    x = images(30, 1, 30).reshape(30, 2, 5, 3)
    row = rows_of(keras_ic.measure(model, x, verbose=0))["einsum", "inference"]
    assert (row.channels, row.rows) == (6, 150)
    np.testing.assert_allclose(
        row.correlation, correlation_of(x.transpose(0, 2, 1, 3).reshape(-1, 6)), rtol=1e-4
    )


def test_masked_positions_do_not_count():
    model = keras.Sequential(
        [keras.Input((4, 3)), layers.Masking(0.0), keras_ic.IC(0.1), layers.Dense(2, name="dense")]
    )
    x = images(50, 2).reshape(50, 4, 3)
    x[:, 2:] = 0
    report = keras_ic.measure(model, x, verbose=0)
    row = rows_of(report)["dense", "inference"]
    assert row.rows == 100
    np.testing.assert_allclose(row.correlation, correlation_of(x[:, :2]), rtol=1e-3)
    np.testing.assert_allclose(report.shifts[0].highest, x[:, :2].var((0, 1)).max(), rtol=1e-2)


@pytest.mark.parametrize("shared", [False, True])
def test_the_zeros_of_padding_are_no_values(shared):
    conv = layers.Conv2D(4, 3, name="conv")
    inputs = keras.Input((8, 8, 3))
    outputs = conv(layers.ZeroPadding2D(((2, 1), (0, 3)))(inputs))
    model = keras.Model(inputs, [outputs, conv(inputs)] if shared else outputs)
    row = rows_of(keras_ic.measure(model, images(16), batch_size=16, rows=5000, verbose=0))[
        "conv", "inference"
    ]
    # Where the layer reads unpadded values too, nothing is cut.
    assert row.rows == 16 * (8 * 8 + 11 * 11 if shared else 8 * 8)
    if not shared:
        np.testing.assert_allclose(row.correlation, correlation_of(images(16)), rtol=1e-4)


def test_a_layer_that_sums_over_the_padded_axis_too_reads_the_zeros():
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.ZeroPadding1D(1),
            layers.EinsumDense("abc,bcd->ad", 4, name="dense"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(64, 5, 3)).astype("float32")
    assert rows_of(keras_ic.measure(model, x, verbose=0))["dense", "inference"].channels == 7 * 3


def test_positions_are_spread_over_the_batch():
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1, name="dense")])
    x = np.zeros((1000, 10), "float32")
    x[np.arange(1000), np.arange(1000) // 100] = 1  # ten blocks, one channel each
    meter = measuring.Meter(model, rows=95)
    collected = []

    class Collecting(RunningCovariance):
        def add(self, values):
            collected.append(values)
            super().add(values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "RunningCovariance", Collecting)
        meter.measure(x, batch_size=1000)
    for values in collected:
        assert values.shape == (95, 10)
        assert values.sum(0).min() >= 6
