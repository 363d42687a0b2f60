"""The function is preserved: absorption into each kind of linear layer, before and after, and the
affine where neither is exact.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from tests.surgery import models

SHAPES = {1: (9, 4), 2: (9, 9, 4), 3: (5, 5, 5, 4)}
LINEAR = [
    layers.Dense(3),
    layers.Dense(3, use_bias=False),
    *(getattr(layers, f"Conv{rank}D")(6, 3, use_bias=rank != 2) for rank in SHAPES),
    *(
        getattr(layers, f"Conv{rank}DTranspose")(6, 3, strides=2, use_bias=rank != 2)
        for rank in SHAPES
    ),
    layers.DepthwiseConv1D(3, depth_multiplier=2),
    layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
    layers.SeparableConv1D(5, 3, depth_multiplier=2),
    layers.SeparableConv2D(5, 3, depth_multiplier=2, use_bias=False),
    layers.Conv2D(6, 3, groups=2, use_bias=False),
    layers.Conv1D(8, 3, groups=4),
    layers.Conv2D(6, 2, dilation_rate=2),
    layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False),
    layers.Conv1D(6, 3, padding="causal"),
    layers.EinsumDense("abcd,de->abce", (None, None, 6)),
    layers.EinsumDense("...d,de->...e", 6, bias_axes="e"),
]


def rank_of(layer):
    name = type(layer).__name__
    return next((rank for rank in SHAPES if f"{rank}D" in name), 2)


def absorbed(model):
    """What becomes of each normalization, without the reasons."""
    return {
        change.layer: change.result.split(":")[0]
        for change in keras_ic.plan(model, weights="preserve", skip_first=False).changes
        if change.kind == "normalization"
    }


def preserved(model):
    models.randomize(model)
    unchanged = models.Unchanged(model)
    new = keras_ic.rewrite(model, weights="preserve", skip_first=False)
    unchanged.check()
    models.assert_same_function(model, new, tolerance=1e-5)
    assert not models.batch_normalizations(new)
    return new


def rebuilt(layer):
    return type(layer).from_config({**layer.get_config(), "name": "linear"})


@pytest.mark.parametrize(
    "settings",
    [{}, {"center": False}, {"scale": False}, {"center": False, "scale": False}],
    ids=str,
)
@pytest.mark.parametrize(
    "layer", LINEAR, ids=lambda layer: f"{type(layer).__name__}-{LINEAR.index(layer)}"
)
def test_absorbed_into_the_layer_before(layer, settings):
    stack = [
        keras.Input(SHAPES[rank_of(layer)]),
        rebuilt(layer),
        layers.Dropout(0.5),
        layers.BatchNormalization(name="bn", **settings),
        layers.ReLU(),
    ]
    model = models.randomize(keras.Sequential(stack))
    assert absorbed(model) == {"bn": "folded into linear"}
    assert preserved(model).get_layer("linear").weights[-1].name == "bias"


@pytest.mark.parametrize(
    "layer", LINEAR, ids=lambda layer: f"{type(layer).__name__}-{LINEAR.index(layer)}"
)
def test_absorbed_into_the_layer_behind_where_that_is_exact(layer):
    stack = [
        keras.Input(SHAPES[rank_of(layer)]),
        layers.BatchNormalization(name="bn"),
        layers.Dropout(0.5),
        rebuilt(layer),
    ]
    model = models.randomize(keras.Sequential(stack))
    padded = getattr(layer, "padding", "valid") != "valid"
    exact = not padded and "Transpose" not in type(layer).__name__
    assert absorbed(model) == {
        "bn": "folded into linear" if exact else "scale folded into linear; shift stays as bn_shift"
    }
    preserved(model)


ON_IMAGES = [
    layer for layer in LINEAR if rank_of(layer) == 2 and not isinstance(layer, layers.EinsumDense)
]


@pytest.mark.parametrize(
    "layer", ON_IMAGES, ids=lambda layer: f"{type(layer).__name__}-{LINEAR.index(layer)}"
)
def test_a_mere_scale_goes_through_padding_into_the_layer_behind(layer):
    normalization = layers.BatchNormalization(center=False, name="bn")
    model = keras.Sequential(
        [keras.Input(SHAPES[2]), normalization, layers.ZeroPadding2D(2), rebuilt(layer)]
    )
    normalization.gamma.assign([0.5, 2.0, 3.0, 0.1])
    normalization.moving_variance.assign([0.5, 2.0, 3.0, 0.1])
    assert absorbed(model) == {"bn": "folded into linear"}
    new = keras_ic.rewrite(model, weights="preserve", skip_first=False)
    models.assert_same_function(model, new, tolerance=1e-5)
    assert len(new.get_layer("linear").weights) == len(model.get_layer("linear").weights)


def test_a_shift_does_not_go_through_padding():
    model = models.randomize(
        keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                layers.BatchNormalization(name="bn"),
                layers.ZeroPadding2D(),
                layers.Conv2D(4, 3, name="conv"),
            ]
        )
    )
    assert absorbed(model) == {"bn": "scale folded into conv; shift stays as bn_shift"}
    preserved(model)


def functional(build):
    inputs = keras.Input((8, 8, 3))
    return models.randomize(keras.Model(inputs, build(layers.Conv2D(4, 3, name="conv")(inputs))))


CASES = {
    "after an activation, before a padded convolution": (
        lambda x: layers.Conv2D(3, 3, padding="same", name="padded")(
            layers.BatchNormalization(name="bn")(keras.ops.relu(x))
        ),
        "scale folded into padded; shift stays as bn_shift",
    ),
    "before several layers": (
        lambda x: [
            layers.Conv2D(3, 1, name=name)(x)
            for x in [layers.BatchNormalization(name="bn")(keras.ops.relu(x))]
            for name in ("one", "two")
        ],
        "folded into one, two",
    ),
    "before a layer and an addition": (
        lambda x: [
            y + layers.Conv2D(4, 1)(y)
            for y in [layers.BatchNormalization(name="bn")(keras.ops.relu(x))]
        ],
        "becomes bn_affine",
    ),
    "after a layer that others read": (
        lambda x: layers.BatchNormalization(name="bn")(x) + x,
        "becomes bn_affine",
    ),
    "after a layer that is an output": (
        lambda x: [keras.ops.relu(layers.BatchNormalization(name="bn")(x)), x],
        "becomes bn_affine",
    ),
    "at an output": (lambda x: layers.BatchNormalization(name="bn")(x), "folded into conv"),
    "after an addition": (
        lambda x: layers.BatchNormalization(name="bn")(keras.ops.relu(x) + x),
        "becomes bn_affine",
    ),
    "before pooling": (
        lambda x: layers.MaxPooling2D()(layers.BatchNormalization(name="bn")(x)),
        "folded into conv",
    ),
    "after pooling": (
        lambda x: layers.BatchNormalization(name="bn")(layers.MaxPooling2D()(x)),
        "folded into conv",
    ),
    "on another axis": (
        lambda x: layers.BatchNormalization(axis=1, name="bn")(x),
        "becomes bn_affine",
    ),
    "after a fused activation": (
        lambda x: layers.BatchNormalization(name="bn")(
            layers.Conv2D(4, 1, activation="relu", name="fused")(x)
        ),
        "becomes bn_affine",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_a_normalization_stands(case):
    build, expected = CASES[case]
    model = functional(build)
    assert absorbed(model) == {"bn": expected}
    preserved(model)


def test_two_normalizations_in_a_row_and_around_one_layer():
    model = functional(
        lambda x: layers.BatchNormalization(name="two")(
            layers.Dropout(0.2)(layers.BatchNormalization(name="one")(x))
        )
    )
    assert absorbed(model) == {"one": "folded into conv", "two": "folded into conv"}
    preserved(model)
    around = [
        layers.ReLU(),
        layers.BatchNormalization(name="one"),
        layers.Conv2D(5, 1, use_bias=False, name="mid"),
        layers.BatchNormalization(name="two"),
    ]

    def stack(x):
        for layer in around:
            x = layer(x)
        return x

    model = functional(stack)
    assert absorbed(model) == {"one": "folded into mid", "two": "folded into mid"}
    preserved(model)


def test_a_shared_layer_absorbs_nothing_and_a_shared_normalization_is_shared():
    shared, normalization = layers.Dense(4, name="shared"), layers.BatchNormalization(name="bn")
    inputs = keras.Input((4,))
    x = normalization(shared(inputs))
    model = models.randomize(keras.Model(inputs, [x, shared(x), normalization(keras.ops.tanh(x))]))
    assert absorbed(model) == {"bn": "becomes bn_affine"}
    new = preserved(model)
    assert len(new.get_layer("bn_affine")._inbound_nodes) == 2


def test_inside_time_distributed():
    stack = [
        keras.Input((5, 4)),
        layers.TimeDistributed(layers.Dense(3)),
        layers.TimeDistributed(layers.BatchNormalization(), name="bn"),
        layers.Dense(2),
    ]
    preserved(keras.Sequential(stack))


def test_bias_leave_absorbs_where_there_is_a_bias():
    for use_bias, expected in ((True, "folded into conv"), (False, "becomes bn_affine")):
        stack = [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, use_bias=use_bias, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
        ]
        model = models.randomize(keras.Sequential([*stack, layers.Conv2D(2, 1, use_bias=False)]))
        plan = keras_ic.plan(model, weights="preserve", bias="leave")
        (row,) = [change for change in plan.changes if change.kind == "normalization"]
        assert row.result.startswith(expected)
        models.assert_same_function(
            model, keras_ic.rewrite(model, weights="preserve", bias="leave")
        )


def test_ics_start_as_identities():
    model = models.randomize(models.small_convolutional())
    for ic in models.ics(keras_ic.rewrite(model, weights="preserve")):
        x = np.random.default_rng(0).normal(size=(2, 3, 3, ic.gamma.shape[0])).astype("float32")
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ic(x)), x, rtol=1e-6)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("float64", marks=pytest.mark.tensorflow_only)]
)
def test_other_precisions(policy):
    keras.config.set_dtype_policy(policy)
    model = models.randomize(models.small_convolutional())
    new = keras_ic.rewrite(model, weights="preserve")
    models.assert_same_function(model, new, tolerance=2e-2 if policy == "mixed_float16" else 1e-4)
    assert {layer.dtype_policy.name for layer in new.layers} == {policy}


def test_copy_goes_by_layer():
    model = models.randomize(models.small_convolutional())
    new = keras_ic.rewrite(model, weights="copy")
    for name in ("conv1", "conv2", "dense"):
        np.testing.assert_array_equal(
            new.get_layer(name).kernel.numpy(), model.get_layer(name).kernel.numpy()
        )
    assert not new.get_layer("conv1").bias.numpy().any()
    np.testing.assert_array_equal(
        new.get_layer("dense").bias.numpy(), model.get_layer("dense").bias.numpy()
    )
    assert type(new.get_layer("conv1").kernel_initializer) is type(
        model.get_layer("conv1").kernel_initializer
    )
    fresh = keras_ic.rewrite(model)
    assert (
        np.abs(
            fresh.get_layer("dense").kernel.numpy() - model.get_layer("dense").kernel.numpy()
        ).max()
        > 0
    )


def test_state_of_preprocessing_is_always_copied():
    preprocessing = layers.Normalization()
    preprocessing.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype("float32"))
    model = keras.Sequential([keras.Input((4,)), preprocessing, layers.Dense(3), layers.Dense(2)])
    new = keras_ic.rewrite(model)
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(made.layers[0](np.ones((1, 4)))) for made in (model, new))
    )


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("mode", ["tf_idf", "multi_hot", "count"])
def test_state_of_text_preprocessing_is_copied(mode):
    texts = np.array(["red blue", "blue blue green", "red"])
    preprocessing = layers.TextVectorization(max_tokens=6, output_mode=mode)
    preprocessing.adapt(texts)
    inputs = keras.Input((), dtype="string")
    x = layers.Dense(3, "relu")(preprocessing(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.BatchNormalization()(x)))
    for new in (
        keras_ic.rewrite(model, weights="preserve"),
        keras_ic.fold(models.randomize(model)),
    ):
        np.testing.assert_array_equal(
            *(
                keras.ops.convert_to_numpy(made.get_layer(preprocessing.name)(texts))
                for made in (model, new)
            )
        )


def test_normalization_of_given_and_of_adapted_mean():
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 2)).astype("float32"))
    for given in (adapted, layers.Normalization(mean=[1.0, 2.0], variance=[2.0, 3.0])):
        model = keras.Sequential([keras.Input((2,)), given, layers.Dense(3), layers.Dense(2)])
        models.assert_same_function(model, keras_ic.rewrite(model, weights="preserve"))


def test_flags_of_single_weights_survive():
    model = models.randomize(models.small_convolutional())
    model.get_layer("conv2").kernel.trainable = False
    for made in (keras_ic.rewrite(model, weights="preserve"), keras_ic.fold(model)):
        assert not made.get_layer("conv2").kernel.trainable
        assert made.get_layer("conv2").bias.trainable and made.get_layer("conv1").kernel.trainable


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")
def test_weights_are_paired_by_path():
    model = models.randomize(
        keras.Sequential(
            [keras.Input((8,)), layers.Dense(8, "relu", name="one"), layers.Dense(8, name="two")]
        )
    )
    model.quantize("float8")
    for weight in model.weights:
        if weight.name.endswith("_scale"):
            weight.assign(2.0)
    new = keras_ic.rewrite(model, weights="copy")
    by_path = {weight.path: weight.numpy() for weight in new.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(by_path[weight.path], weight.numpy())
