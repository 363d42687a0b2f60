"""What may stand between an IC layer and the linear layer that takes it up, before or after it."""

import keras
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine, ChannelClip
from tests.surgery.folds import folded, kinds, results


def between():
    conv, same = (
        (lambda: layers.Conv2D(3, 3, name="linear")),
        (lambda: layers.Conv2D(3, 3, padding="same", name="linear")),
    )
    dense = lambda: layers.Dense(3, name="linear")  # noqa: E731
    yield "flatten", [layers.Flatten()], dense, True
    yield "reshape to vectors", [layers.Reshape((-1, 4))], dense, True
    yield (
        "reshape of channels",
        [layers.Reshape((8, 8, 2, 2)), layers.Reshape((64, 4))],
        dense,
        True,
    )
    yield "reshape that mixes", [layers.Reshape((8, 4, 8))], dense, True
    yield "zero padding", [layers.ZeroPadding2D(((1, 0), (0, 2)))], conv, False
    yield "flatten, pad", [layers.ZeroPadding2D(), layers.Flatten()], dense, False
    yield "average pooling", [layers.AveragePooling2D(3, strides=2, padding="same")], conv, True
    yield "maximum pooling", [layers.MaxPooling2D(3, strides=2, padding="same")], conv, True
    yield "global average pooling", [layers.GlobalAveragePooling2D()], dense, True
    yield "global maximum pooling, kept", [layers.GlobalMaxPooling2D(keepdims=True)], dense, True
    yield "cropping", [layers.Cropping2D(1)], conv, True
    yield (
        "upsampling",
        [layers.UpSampling2D(2), layers.UpSampling2D(2, interpolation="bilinear")],
        conv,
        True,
    )
    yield "permute", [layers.Permute((2, 1, 3))], conv, True
    yield "permute channels away", [layers.Permute((3, 1, 2))], dense, False
    yield (
        "dropout",
        [
            layers.Dropout(0.5),
            layers.SpatialDropout2D(0.2),
            layers.GaussianNoise(0.1),
            layers.Activation("linear"),
        ],
        conv,
        True,
    )
    yield "pooling, then same", [layers.AveragePooling2D(2)], same, False


@pytest.mark.parametrize(
    "steps, linear, whole", [pytest.param(*case[1:], id=case[0]) for case in between()]
)
def test_what_stands_between_an_ic_and_a_linear_layer(steps, linear, whole):
    steps = [type(step).from_config(step.get_config()) for step in steps]
    new = folded(
        keras.Sequential([keras.Input((8, 8, 4)), keras_ic.IC(name="ic"), *steps, linear()])
    )
    assert (ChannelAffine not in kinds(new)) == whole


@pytest.mark.parametrize(
    "steps",
    [
        ["MaxPooling2D"],
        ["AveragePooling2D", "MaxPooling2D"],
        ["UpSampling2D", "Cropping2D", "Dropout"],
    ],
    ids=str,
)
def test_what_stands_between_a_linear_layer_and_a_map_behind_it(steps):
    made = [
        getattr(layers, step)(*{"Dropout": [0.5], "AveragePooling2D": [2]}.get(step, []))
        for step in steps
    ]
    relu = layers.Conv2D(4, 3, activation="relu", name="first")
    new = folded(
        keras.Sequential(
            [
                keras.Input((12, 12, 3)),
                relu,
                *made,
                keras_ic.IC(name="ic"),
                layers.Conv2D(3, 3, padding="same"),
            ]
        )
    )
    assert ChannelAffine not in kinds(new) and ChannelClip in kinds(new)
    new = folded(
        keras.Sequential(
            [
                keras.Input((12, 12, 3)),
                layers.Conv2D(4, 3),
                *made,
                layers.BatchNormalization(name="bn"),
                layers.ReLU(),
            ]
        )
    )
    assert not {ChannelAffine, ChannelClip} & kinds(new)


def test_maximum_pooling_does_not_pass_a_negative_scale():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            keras_ic.IC(name="ic"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(3, 3, name="conv"),
        ]
    )
    new = folded(model, negative=0.6)
    assert (
        new.get_layer("ic_affine").use_scale
        and "pool (MaxPooling2D) reads it" in results(model)["ic"]
    )


def test_signs_go_behind_maximum_pooling_without_a_relu():
    stack = [
        layers.Conv2D(4, 3, use_bias=False, name="one"),
        layers.MaxPooling2D(),
        layers.BatchNormalization(name="bn"),
    ]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *stack,
            layers.Conv2D(5, 3, padding="same", use_bias=False, name="two"),
        ]
    )
    new = folded(model, negative=0.6, seed=2)
    assert (model.get_layer("bn").gamma.numpy() < 0).any() and (
        model.get_layer("bn").gamma.numpy() > 0
    ).any()
    assert [type(layer) for layer in new.layers] == [
        layers.Conv2D,
        layers.MaxPooling2D,
        layers.Conv2D,
    ]
    assert results(model) == {
        "one": "gets a bias",
        "bn": "folded into one, two, of which the first takes all but the signs",
    }
    assert not new.get_layer("two").use_bias


def test_per_feature_map_through_flatten_of_channels_first():
    model = keras.Sequential(
        [
            keras.Input((4, 5, 6)),
            keras_ic.IC(axis=1),
            layers.Flatten(data_format="channels_first"),
            layers.Dense(3),
        ]
    )
    assert [type(layer) for layer in folded(model).layers] == [layers.Flatten, layers.Dense]
