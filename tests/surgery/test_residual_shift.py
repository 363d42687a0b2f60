"""Shifts that a residual stream carries when a model is folded."""

import keras
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine, ChannelClip
from keras_ic.surgery import plan_fold
from tests.surgery.folds import folded


def conv(filters=8, **settings):
    return layers.Conv2D(filters, 3, padding="same", use_bias=False, **settings)


def tanh(x):
    return layers.Activation("tanh")(x)


def branch(x, name, activation):
    """What a pre-activation block adds to `x`; its first convolution pads with zeros, so that the
    shift before it cannot go there.
    """
    x = keras_ic.IC(name=f"{name}_ic")(activation(x))
    return conv(name=f"{name}_conv2")(tanh(conv(name=f"{name}_conv1")(x)))


def model_of(body):
    inputs = keras.Input((7, 6, 3))
    x = body(conv(name="stem")(inputs))
    return keras.Model(
        inputs, layers.Dense(3, name="end")(layers.GlobalAveragePooling2D()(tanh(x)))
    )


def results(model):
    return {change.layer: change.result for change in plan_fold(model).changes}


def two_blocks(
    activation=layers.ReLU, normalize=lambda y: y, add=lambda x, y: layers.Add()([x, y])
):
    def body(x):
        for name in "ab":
            x = add(x, normalize(branch(x, name, activation())))
        return x

    return body


def nothing():
    return lambda x: x


CARRIES = {
    "layers": two_blocks(),
    "op nodes": two_blocks(add=lambda x, y: x + y),
    "the sum second": two_blocks(add=lambda x, y: keras.ops.add(y, x)),
    "three terms": two_blocks(add=lambda x, y: layers.Add()([tanh(y), x, conv()(tanh(y))])),
    "a sum of sums": two_blocks(normalize=lambda y: layers.Add()([conv()(y), conv()(y)])),
    "relu6": two_blocks(lambda: layers.ReLU(6.0)),
    "dropout after the relu": two_blocks(lambda: lambda x: layers.Dropout(0.1)(layers.ReLU()(x))),
    "no activation": two_blocks(nothing),
    "BatchNormalization": two_blocks(
        normalize=lambda y: layers.Dropout(0.1)(layers.BatchNormalization()(y))
    ),
}


@pytest.mark.parametrize("case", CARRIES)
def test_a_residual_stream_carries_the_shifts(case):
    model = model_of(CARRIES[case])
    new = folded(model)
    assert not any(isinstance(layer, ChannelAffine) for layer in new.layers)
    assert sum(isinstance(layer, ChannelClip) for layer in new.layers) == (
        0 if case == "no activation" else 2
    )
    found = results(model)
    assert found["a_ic"].startswith("folded into a_conv1, stem, ") and found["a_ic"].endswith(
        "the shift along the residual stream"
    )
    assert found["stem"] == "gets a bias"


def as_output():
    inputs = keras.Input((7, 6, 3))
    x = conv(name="stem")(inputs)
    return keras.Model(inputs, [layers.Add()([x, branch(x, "a", layers.ReLU())]), x])


def of_the_raw_input():
    inputs = keras.Input((7, 6, 8))
    return keras.Model(inputs, layers.Add()([inputs, branch(inputs, "a", layers.ReLU())]))


def with_shared_layer():
    shared = conv()

    def body(x):
        return layers.Add()([shared(branch(x, "a", layers.ReLU())), shared(tanh(x)), x])

    return model_of(body)


STAYS = {
    "the sum is an output of the model": as_output,
    "the sum is an input of the model": of_the_raw_input,
    "something else reads the sum": lambda: model_of(
        lambda x: layers.Multiply()([layers.Add()([x, branch(x, "a", layers.ReLU())]), x])
    ),
    "the layer on the other side is called twice": with_shared_layer,
    "the layer on the other side has an activation": lambda: model_of(
        lambda x: layers.Add()([x, conv(activation="tanh")(branch(x, "a", layers.ReLU()))])
    ),
    "something else reads the other side": lambda: model_of(
        lambda x: (lambda y: layers.Multiply()([layers.Add()([x, y]), y]))(
            branch(x, "a", layers.ReLU())
        )
    ),
    "the sum is added twice": lambda: model_of(
        lambda x: layers.Add()([x, branch(x, "a", layers.ReLU()), x])
    ),
    "the other side has one channel for all": lambda: model_of(
        lambda x: layers.Add()([x, conv(1)(branch(x, "a", layers.ReLU()))])
    ),
    "the stem is called twice": lambda: model_of(
        lambda x: (lambda stem: layers.Add()([stem(tanh(x)), branch(stem(x), "a", layers.ReLU())]))(
            conv()
        )
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_a_shift_stays_where_the_stream_cannot_carry_it(case):
    model = STAYS[case]()
    folded(model)
    assert "shift stays" in results(model)["a_ic"]


def test_a_shift_much_larger_than_what_it_is_added_to_stays():
    model = model_of(two_blocks())
    model.get_layer("a_ic").beta.assign(keras.ops.full((8,), 100.0))
    found = results(model)
    assert "shift stays" in found["a_ic"]
    model.get_layer("a_ic").beta.assign(keras.ops.ones((8,)))
    assert "residual stream" in results(model)["a_ic"]
