"""Masks of sequences reach the IC layers, which leave masked steps out of their statistics."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from tests.surgery import models


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "Bidirectional", "two"])
def test_a_mask_that_comes_out_of_a_recurrent_layer(kind):
    """With `return_sequences`, the steps after it are masked as those before it."""

    def recurrent(name):
        return layers.LSTM(4, return_sequences=True, name=name)

    stack = {
        "LSTM": [recurrent("it")],
        "GRU": [layers.GRU(4, return_sequences=True, name="it")],
        "Bidirectional": [layers.Bidirectional(recurrent("inner"), name="it")],
        "two": [recurrent("first"), recurrent("it")],
    }[kind]
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True, name="ids")(inputs)
    for layer in stack:
        x = layer(x)
    features = keras.Model(inputs, x)
    x = layers.Dense(3, "relu", name="dense")(x)
    model = keras.Model(inputs, layers.Dense(2, name="end")(layers.GlobalAveragePooling1D()(x)))
    models.randomize(model)
    new = keras_ic.rewrite(model, 0.0, weights="preserve")
    x = np.random.default_rng(0).integers(1, 9, (64, 6))
    x[::2, 3:] = 0
    np.testing.assert_allclose(models.outputs(new, x)[0], models.outputs(model, x)[0], atol=1e-5)
    ic = new.get_layer("dense_ic")
    ic.momentum = 0.0
    new(x, training=True)
    valid = keras.ops.convert_to_numpy(keras.ops.stop_gradient(features(x)))[x > 0]
    np.testing.assert_allclose(ic.moving_mean.numpy(), valid.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ic.moving_variance.numpy(), valid.var(0), rtol=1e-4, atol=1e-5)
    keras_ic.calibrate(new, x, verbose=0)
    np.testing.assert_allclose(ic.moving_mean.numpy(), valid.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind, expected", [("Embedding", ["one_ic", "two_ic"]), ("Masking", ["two_ic"])]
)
def test_masks_in_a_sequential(kind, expected):
    first = layers.Embedding(9, 4, mask_zero=True) if kind == "Embedding" else layers.Masking()
    inputs = keras.Input((5,), dtype="int32") if kind == "Embedding" else keras.Input((5, 4))
    stack = [
        first,
        layers.Dense(4, name="one"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dense(4, name="two"),
        layers.LSTM(3),
    ]
    model = models.randomize(keras.Sequential([inputs, *stack]))
    x = np.random.default_rng(0).integers(0, 3, (6, *inputs.shape[1:])).astype(inputs.dtype)
    x[:, 3:] = 0
    new = keras_ic.rewrite(model, weights="preserve")
    assert [ic.name for ic in models.ics(new)] == expected
    for made in (new, keras_ic.fold(model)):
        assert type(made) is keras.Sequential and all(
            isinstance(layer, layers.Layer) for layer in made.layers
        )
        np.testing.assert_allclose(
            models.outputs(made, x)[0], models.outputs(model, x)[0], atol=1e-5
        )


@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask attached to it")
def test_a_mask_with_fewer_axes_than_the_frames_of_a_video():
    inputs = keras.Input((4, 75))
    frames = keras.layers.TimeDistributed(keras.layers.Reshape((5, 5, 3)))(
        keras.layers.Masking()(inputs)
    )
    x = keras.layers.Conv3D(4, (1, 3, 3), activation="relu", name="first")(frames)
    model = keras.Model(inputs, keras.layers.Conv3D(2, (1, 3, 3), name="second")(x))
    new = keras_ic.rewrite(model, 0.1, skip_first=False)
    ic = new.get_layer("first_ic")
    videos = np.random.default_rng(0).normal(3.0, 2.0, (6, 4, 75)).astype("float32")
    videos[:, 2:] = 0  # two frames of four are there
    new(videos, training=True)
    # The frames that are not there do not enter the statistics.
    expected = videos[:, :2].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ic.moving_mean), 0.01 * expected, rtol=1e-3
    )
