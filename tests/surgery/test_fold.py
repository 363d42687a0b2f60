"""IC layers, BatchNormalization and dropout folded into the layers beside them: what stands where,
and what is left.
"""

import keras
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine, ChannelClip
from keras_ic.surgery import plan_fold
from tests.surgery import models
from tests.surgery.folds import folded, kinds, results, scatter

RELUS = {
    "ReLU": lambda: layers.ReLU(),
    "ReLU6": lambda: layers.ReLU(6.0),
    "Activation": lambda: layers.Activation("relu"),
    "Activation of a function": lambda: layers.Activation(keras.activations.relu6),
    "op": lambda: keras.ops.relu,
    "op 6": lambda: keras.ops.relu6,
}


@pytest.mark.parametrize("relu", RELUS)
def test_every_relu_takes_the_shift(relu):
    inputs = keras.Input((6, 6, 3))
    x = RELUS[relu]()(layers.Conv2D(4, 3, name="first")(inputs))
    model = keras.Model(
        inputs, layers.Conv2D(2, 3, padding="same", name="second")(keras_ic.IC(name="ic")(x))
    )
    new = folded(model)
    assert ChannelClip in kinds(new) and ChannelAffine not in kinds(new)
    assert results(model)["ic"] == "folded into first, through the ReLU between"


@pytest.mark.parametrize(
    "activation",
    [
        layers.ReLU(negative_slope=0.1),
        layers.ReLU(threshold=0.5),
        layers.Activation("tanh"),
        layers.LeakyReLU(),
    ],
)
def test_other_activations_do_not(activation):
    activation = type(activation).from_config(activation.get_config())
    stack = [
        keras.Input((6, 6, 3)),
        layers.Conv2D(4, 3),
        activation,
        keras_ic.IC(name="ic"),
        layers.Conv2D(2, 3, padding="same", name="last"),
    ]
    model = keras.Sequential(stack)
    new = folded(model)
    assert ChannelClip not in kinds(new) and type(new.get_layer("ic_shift")) is ChannelAffine
    assert results(model)["ic"].startswith(
        "scale folded into last; shift stays as ic_shift: last (Conv2D) reads it and pads with"
        " zeros"
    )


def test_a_relu_that_others_read_keeps_its_zero():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    model = keras.Model(
        inputs, x + layers.Conv2D(4, 3, padding="same", name="second")(keras_ic.IC(name="ic")(x))
    )
    new = folded(model)
    assert ChannelClip not in kinds(new) and not new.get_layer("ic_shift").use_scale
    assert new.get_layer("first").activation is keras.activations.relu


def test_scales_of_zero():
    for before, left in (
        ([], ChannelAffine),
        ([layers.Conv2D(4, 3, name="first"), layers.ReLU()], ChannelClip),
    ):
        model = scatter(
            keras.Sequential(
                [
                    keras.Input((6, 6, 4)),
                    *before,
                    keras_ic.IC(name="ic"),
                    layers.Conv2D(3, 3, padding="same", name="conv"),
                ]
            ),
            0,
            0,
            0,
        )
        model.get_layer("ic").gamma.assign([1.0, 0.0, 2.0, 0.0])
        new = keras_ic.fold(model)
        models.assert_same_function(model, new, 1e-5)
        assert left in kinds(new)
        if left is ChannelAffine:
            assert new.get_layer("ic_affine").use_scale
            assert "a scale as small as one here cannot go either" in results(model)["ic"]


def test_a_shared_ic_folds_into_all_its_readers():
    inputs = keras.Input((6, 6, 3))
    x = keras_ic.IC(name="ic")(layers.Activation("tanh")(layers.Conv2D(4, 3)(inputs)))
    valid = [
        layers.Conv2D(5, 1, strides=2, name="one")(x),
        layers.Dense(2, name="two")(x),
        layers.Conv2D(3, 2, name="three")(layers.Dropout(0.5)(x)),
    ]
    model = keras.Model(inputs, valid)
    assert ChannelAffine not in kinds(folded(model))
    assert sorted(results(model)["ic"].removeprefix("folded into ").split(", ")) == [
        "one",
        "three",
        "two",
    ]
    mixed = keras.Model(inputs, [*valid, layers.Conv2D(3, 3, padding="same", name="four")(x)])
    assert not folded(mixed).get_layer("ic_shift").use_scale
    refused = keras.Model(inputs, [*valid, keras.ops.tanh(x)])
    assert folded(refused).get_layer("ic_affine").use_scale


def test_a_shared_weight_layer_takes_up_nothing():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(
        inputs,
        shared(keras_ic.IC(name="two")(keras.ops.tanh(shared(keras_ic.IC(name="one")(inputs))))),
    )
    new = folded(model)
    assert sum(isinstance(layer, ChannelAffine) for layer in new.layers) == 2
    assert "shared (Dense) reads it, which is called several times" in results(model)["one"]


def test_a_shared_ic_layer_with_calls_of_its_own_fates():
    inputs = keras.Input((4,))
    ic = keras_ic.IC(name="ic")
    model = keras.Model(
        inputs,
        [
            layers.Dense(2, name="a")(ic(inputs)),
            keras.ops.tanh(ic(keras.ops.tanh(inputs))),
            keras.ops.relu(ic(inputs * 2.0)),
        ],
    )
    assert sum(isinstance(layer, ChannelAffine) for layer in folded(model).layers) == 1


@pytest.mark.parametrize("concatenate", [layers.Concatenate(), keras.ops.concatenate])
def test_every_branch_of_a_concatenation_takes_its_part(concatenate):
    inputs = keras.Input((8, 8, 3))
    branches = [
        layers.Conv2D(2, 1, use_bias=False, name="a")(inputs),
        layers.Dropout(0.1)(layers.Conv2D(3, 3, padding="same", name="b")(inputs)),
        layers.MaxPooling2D(1)(layers.Conv2D(4, 1, activation="relu", name="c")(inputs)),
    ]
    for count, left in ((2, set()), (3, {ChannelClip})):
        if isinstance(concatenate, layers.Layer):
            x = layers.Concatenate()(branches[:count])
        else:
            x = keras.ops.concatenate(branches[:count], axis=-1)
        model = keras.Model(
            inputs, keras.ops.tanh(layers.BatchNormalization(name="bn")(x)), name="branches"
        )
        new = folded(model)
        assert {ChannelAffine, ChannelClip} & kinds(new) == left
        assert results(model)["bn"].startswith("folded into " + ", ".join("abc"[:count]))


def test_a_branch_that_cannot_take_its_part_keeps_all_where_it_is():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate()([layers.Conv2D(2, 1, name="a")(inputs), keras.ops.tanh(inputs)])
    model = keras.Model(inputs, keras.ops.tanh(layers.BatchNormalization(name="bn")(x)))
    new = folded(model)
    assert new.get_layer("bn_affine").use_scale and len(results(model)) == 1


def test_both_forms_of_a_network_fold_to_the_same_count():
    """What is left before a ReLU takes up the shift that an IC after it leaves."""
    inputs = keras.Input((9, 8))
    x = layers.Conv1D(8, 3, padding="same", name="stem")(inputs)
    for block in "ab":
        y = layers.ReLU()(layers.BatchNormalization(name=f"{block}_bn1")(x))
        y = layers.Conv1D(8, 3, padding="same")(y)
        y = layers.ReLU()(layers.BatchNormalization(name=f"{block}_bn2")(y))
        x = layers.Add()([x, layers.Conv1D(8, 3, padding="same")(y)])
    model = scatter(keras.Model(inputs, layers.Conv1D(2, 1)(x)), 0, 0, 0)
    rewritten = keras_ic.rewrite(model, weights="preserve")
    keras_ic.calibrate(rewritten, models.sample(model, batch=16), verbose=0)
    given, ours = keras_ic.fold(model), keras_ic.fold(rewritten)
    models.assert_same_function(model, ours, 1e-5)
    assert len(ours.layers) == len(given.layers)


def test_normalizations_in_a_row_merge():
    inputs = keras.Input((6, 6, 3))
    x = layers.BatchNormalization(name="one")(keras.ops.tanh(inputs))
    x = layers.BatchNormalization(name="three")(
        layers.AveragePooling2D(2)(keras_ic.IC(name="two")(x))
    )
    model = keras.Model(inputs, layers.Conv2D(4, 3, padding="same", name="conv")(x))
    new = folded(model)
    assert (
        results(model)["one"] == "merged with two" and results(model)["two"] == "merged with three"
    )
    assert [type(layer) for layer in new.layers if isinstance(layer, ChannelAffine)] == [
        ChannelAffine
    ]
    x = keras_ic.IC(name="second")(keras_ic.IC(name="first")(inputs))
    assert folded(keras.Model(inputs, keras.ops.tanh(x))).get_layer("second_affine").use_scale


def test_usual_networks_fold_too():
    new = folded(models.small_convolutional())
    assert [layer.name for layer in new.layers] == [
        "conv1",
        "relu1",
        "pad",
        "conv2",
        "relu2",
        "flatten",
        "dense",
    ]
    assert not {ChannelAffine, ChannelClip} & kinds(new)


def test_affines_of_a_rewriting_fold_where_they_can():
    inputs = keras.Input((6, 6, 3))
    x = layers.ReLU()(layers.Conv2D(4, 3, name="conv")(inputs))
    model = scatter(
        keras.Model(
            inputs, layers.Conv2D(2, 1)(keras.ops.tanh(layers.BatchNormalization(name="bn")(x)))
        ),
        0,
        0,
        0,
    )
    rewritten = keras_ic.rewrite(model, weights="preserve")
    assert ChannelAffine in kinds(rewritten) and ChannelAffine not in kinds(folded(rewritten))
    stays = scatter(
        keras.Sequential(
            [
                keras.Input((4,)),
                ChannelAffine(name="affine"),
                layers.Activation("tanh"),
                layers.Dropout(0.1),
            ]
        ),
        0,
        0,
        0,
    )
    stays.get_layer("affine").shift.assign([0.0, 1.0, 2.0, 3.0])
    assert [skip.layer for skip in plan_fold(stays).skipped] == ["affine"]
    assert [type(layer) for layer in keras_ic.fold(stays).layers] == [
        ChannelAffine,
        layers.Activation,
    ]


def test_dropout_alone_leaves():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5), layers.Dense(2)]
    )
    assert [layer.name for layer in keras_ic.fold(model).layers] == [
        model.layers[0].name,
        model.layers[2].name,
    ]


def test_identities_only_leave():
    given = scatter(models.small_convolutional(), 0, 0, 0)
    rewritten = keras_ic.rewrite(given, weights="preserve")
    new = keras_ic.fold(rewritten)
    assert set(results(rewritten).values()) == {"removed: the identity at inference"}
    assert [layer.name for layer in new.layers] == [
        layer.name for layer in given.layers if not layer.name.startswith("bn")
    ]
    models.assert_same_function(given, new, 1e-5)
