"""IC layers, BatchNormalization and dropout folded into the layers beside them: what stands where,
and what is left.
"""

import keras
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine, ChannelClip
from keras_ic.surgery import plan_fold
from keras_ic.utils.keras_internals import sublayers
from tests.surgery import models
from tests.surgery.test_fold_properties import scatter


def kinds(model):
    return {type(layer) for layer in sublayers(model)}


def results(model):
    return {change.layer: change.result for change in plan_fold(model).changes}


def folded(model, negative=0.0, tolerance=1e-5, seed=1):
    """The folded model, with everything that holds for all of them checked."""
    scatter(model, seed, negative, 0)
    unchanged = models.Unchanged(model)
    plan = plan_fold(model)
    new = keras_ic.fold(model)
    unchanged.check()
    models.assert_same_function(model, new, tolerance)
    assert (
        new.count_params() == plan.parameters[1]
        and type(new) is type(model)
        and new.name == model.name
    )
    assert not models.ics(new) and not models.batch_normalizations(new)
    return new


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


REASONS = {
    "it pads with zeros": (layers.Conv2D(3, 3, padding="same"), "pads with zeros"),
    "its strides leave gaps": (
        layers.Conv2DTranspose(3, 3, strides=2),
        "do not all meet the same weights",
    ),
    "its bias is on another axis": (
        layers.EinsumDense("abcd,cde->abce", (None, 5, 2), bias_axes="e"),
        "whose bias does not run along",
    ),
    "it pads before": (layers.ZeroPadding2D(), "puts zeros around it"),
    "it is not linear": (layers.Activation("tanh"), "no linear layer"),
}


@pytest.mark.parametrize("case", REASONS)
def test_reasons(case):
    layer, reason = REASONS[case]
    model = keras.Sequential(
        [
            keras.Input((6, 5, 4)),
            keras_ic.IC(name="ic"),
            type(layer).from_config(layer.get_config()),
            layers.Dense(2),
        ]
    )
    assert ChannelAffine in kinds(folded(model))
    assert reason in results(model)["ic"]


def test_a_tiny_scale_leaves_the_whole_affine():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras_ic.IC(name="ic"),
            layers.Conv2D(3, 3, padding="same", name="conv"),
        ]
    )
    scatter(model, 0, 0, 0)
    model.get_layer("ic").gamma.assign([1.0, 1e-7])
    assert results(model)["ic"].startswith("becomes ic_affine: conv (Conv2D) reads it")
    models.assert_same_function(model, keras_ic.fold(model), 1e-5)


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


def test_what_a_layer_says_of_its_weights_stays_true():
    stack = [
        layers.Dense(4, kernel_constraint="unit_norm", kernel_regularizer="l2", name="first"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
        layers.Dense(3, kernel_constraint="unit_norm", name="second"),
    ]
    model = keras.Sequential([keras.Input((5,)), *stack])
    new = folded(model)
    assert new.get_layer("first").kernel_constraint is None
    assert new.get_layer("second").kernel_constraint is not None
    plan = keras_ic.plan_fold(model)
    (row,) = [change for change in plan.changes if change.kind == "constraint"]
    assert row.layer == "first" and row.result.startswith("loses its kernel_constraint")
    assert results(model)["bn"].endswith("the penalty of the regularizer of first")


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


def test_what_is_not_known_to_be_linear_is_left_with_the_reason():
    @keras.saving.register_keras_serializable(package="test")
    class Mine(layers.Dense):
        pass

    @keras.saving.register_keras_serializable(package="test")
    class Other(keras_ic.IC):
        def call(self, inputs, training=None):
            return super().call(inputs) * 2.0

    for reader in (
        Mine(3, name="reader"),
        layers.Dense(3, name="reader", lora_rank=2),
        layers.LSTM(3, name="reader"),
    ):
        model = keras.Sequential([keras.Input((5, 4)), keras_ic.IC(name="ic"), reader])
        new = folded(model)
        assert new.get_layer("ic_affine").use_scale and "reader" in results(model)["ic"]
    model = scatter(
        keras.Sequential(
            [keras.Input((4,)), Other(name="other"), keras_ic.IC(name="ic"), layers.Dense(3)]
        ),
        0,
        0,
        0,
    )
    models.assert_same_function(model, keras_ic.fold(model), 1e-5)
    assert "computes something else" in plan_fold(model).skipped[0].reason


def test_called_with_training_stays():
    inputs = keras.Input((4,))
    model = scatter(
        keras.Model(
            inputs,
            layers.Dense(2)(
                keras_ic.IC(name="ic")(layers.BatchNormalization(name="bn")(inputs, training=True))
            ),
        ),
        0,
        0,
        0,
    )
    assert [skip.layer for skip in plan_fold(model).skipped] == ["bn"]
    assert [type(layer).__name__ for layer in keras_ic.fold(model).layers] == [
        "InputLayer",
        "BatchNormalization",
        "Dense",
    ]


def test_normalizations_out_of_sight_are_listed():
    @keras.saving.register_keras_serializable(package="test")
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inside = layers.BatchNormalization()

        def call(self, inputs):
            return self.inside(inputs)

    model = scatter(
        keras.Sequential(
            [keras.Input((4,)), Block(name="block"), keras_ic.IC(name="ic"), layers.Dense(2)]
        ),
        0,
        0,
        0,
    )
    assert [
        (skip.layer, "1 normalizations in it" in skip.reason) for skip in plan_fold(model).skipped
    ] == [("block", True)]
    models.assert_same_function(model, keras_ic.fold(model), 1e-5)


def test_a_model_that_is_called_in_training_stays():
    stack = [layers.Dense(4), keras_ic.IC(0.5, name="inside"), layers.Dense(4)]
    inner = keras.Sequential([keras.Input((4,)), *stack], name="inner")
    inputs = keras.Input((4,))
    for calls in ([True], [None, True], [True, None]):
        x = keras_ic.IC(name="ic")(keras.ops.tanh(inputs))
        for training in calls:
            x = inner(layers.Dense(4)(x), training=training)
        model = scatter(keras.Model(inputs, x), 0, 0, 0)
        assert list(results(model)) == ["ic"]
        assert [skip.reason for skip in plan_fold(model).skipped] == [
            "stays, and the 1 normalizations in it: called with training=True"
        ]
        new = keras_ic.fold(model)
        assert models.draws(new, models.sample(model))  # Its dropout works.


def test_a_folded_model_is_not_folded_again():
    for stack in (
        # A shift stays.
        [
            layers.Conv2D(4, 3),
            layers.LeakyReLU(),
            keras_ic.IC(name="ic"),
            layers.Conv2D(2, 3, padding="same"),
        ],
        [layers.Conv2D(4, 3), keras_ic.IC(name="ic"), layers.Softmax()],  # All goes before.
        # Scale and shift stay.
        [layers.Conv2D(4, 3, activation="tanh"), keras_ic.IC(name="ic"), layers.Softmax()],
        # What is nested holds an Identity.
        [keras.Sequential([keras.Input((6, 6, 3)), layers.Dropout(0.5)])],
    ):
        model = scatter(keras.Sequential([keras.Input((6, 6, 3)), *stack]), 0, 0, 0)
        new = keras_ic.fold(model)
        plan = keras_ic.plan_fold(new)
        assert not plan.changes and str(plan).endswith("`fold` gives an equal copy.")
        again = keras_ic.fold(new)
        assert again is not new and again.get_config() == new.get_config()
        models.assert_same_function(new, again, 0)


def test_dropout_alone_leaves():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5), layers.Dense(2)]
    )
    assert [layer.name for layer in keras_ic.fold(model).layers] == [
        model.layers[0].name,
        model.layers[2].name,
    ]


def test_untrained_statistics_warn():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activation="relu"),
            keras_ic.IC(name="ic"),
            layers.Dense(2),
        ]
    )
    with pytest.warns(
        UserWarning, match=r"as initialized.*recalibrate.*Received: model .* with ic"
    ):
        keras_ic.fold(model)
    # Identities on purpose: no warning.
    keras_ic.fold(
        keras_ic.rewrite(scatter(models.small_convolutional(), 0, 0, 0), weights="preserve")
    )


def test_errors_say_what_to_do():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    for model, message in (
        (Own(), r"subclassed model are Python code.*`keras.Model.*Received: model 'own'"),
        (keras.Sequential([layers.Dense(2)]), r"not built.*Received: model"),
        (3, r"must be a keras.Model. Received: model=3"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_ic.fold(model)
    inputs = keras.Input((4,))
    kept = keras.Model(inputs, layers.BatchNormalization(name="bn")(inputs, training=True))
    assert "called with training=True" in keras_ic.plan_fold(kept).skipped[0].reason


def residual():
    inputs = keras.Input((8, 8, 3), name="images")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for block in range(2):
        y = layers.Conv2D(8, 3, padding="same", name=f"a{block}")(
            keras_ic.IC(name=f"ic_a{block}")(layers.ReLU(name=f"relu_a{block}")(x))
        )
        y = layers.Conv2D(8, 3, padding="same", name=f"b{block}")(
            keras_ic.IC(name=f"ic_b{block}")(layers.ReLU(name=f"relu_b{block}")(y))
        )
        x = layers.Add(name=f"add{block}")([x, y])
    x = keras_ic.IC(name="ic_end")(
        layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu_end")(x))
    )
    return keras.Model(inputs, layers.Dense(4, name="end")(x), name="residual")


def test_the_plan_as_text_and_as_data():
    model = scatter(residual(), 0, 0, 0)
    plan = plan_fold(model)
    shown = str(plan)
    for change in plan.changes:
        assert change.layer in shown and change.result in shown
    assert (
        f"parameters {plan.parameters[0]:,} -> {plan.parameters[1]:,}" in shown
        and plan.flops[1] < plan.flops[0]
    )
    assert set(plan.to_dict()) == {"model", "changes", "skipped", "parameters", "flops", "notes"}


def test_identities_only_leave():
    given = scatter(models.small_convolutional(), 0, 0, 0)
    rewritten = keras_ic.rewrite(given, weights="preserve")
    new = keras_ic.fold(rewritten)
    assert set(results(rewritten).values()) == {"removed: the identity at inference"}
    assert [layer.name for layer in new.layers] == [
        layer.name for layer in given.layers if not layer.name.startswith("bn")
    ]
    models.assert_same_function(given, new, 1e-5)
