"""With rate 0 the layer is BatchNormalization; with a rate it is BatchNormalization, then Dropout,
in distribution.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_ic
from keras_ic.kernels.threshold import realized_rate
from tests.autodiff import HAS_FLOAT64, to_numpy

SHAPES = [
    ((16, 5), -1),
    ((8, 3, 5), -1),
    ((8, 5, 3), 1),
    ((8, 4, 4, 5), -1),
    ((8, 5, 4, 4), 1),
    ((6, 3, 3, 3, 5), -1),
    ((6, 3, 5, 3, 3), 2),
]


def images(shape=(64, 6, 6, 8), seed=0):
    return (3 * np.random.default_rng(seed).normal(size=shape) + 2).astype("float32")


def randomized(layer, shape):
    """The layer, with weights far from their defaults."""
    layer.build((None, *shape[1:]))
    rng = np.random.default_rng(7)
    layer.set_weights([rng.uniform(0.5, 2, w.shape).astype("float32") for w in layer.get_weights()])
    return layer


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"center": False},
        {"scale": False},
        {"center": False, "scale": False},
        {"momentum": 0.5, "epsilon": 1e-5},
    ],
)
def test_rate_zero_is_batch_normalization(shape, axis, options):
    stock = randomized(layers.BatchNormalization(axis=axis, **options), shape)
    ours = keras_ic.IC(0, axis=axis, **options)
    ours.build((None, *shape[1:]))
    assert [w.name for w in ours.weights] == [w.name for w in stock.weights]
    assert len(ours.trainable_weights) == len(stock.trainable_weights)
    ours.set_weights(stock.get_weights())
    for step in range(3):
        x = images(shape, step)
        np.testing.assert_allclose(
            to_numpy(ours(x, training=True)),
            to_numpy(stock(x, training=True)),
            atol=4e-6,
            rtol=1e-5,
        )
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(to_numpy(ours(x)), to_numpy(stock(x)), atol=4e-6, rtol=1e-5)
    stock.set_weights(ours.get_weights())  # and back


def test_masked_positions_do_not_enter_the_statistics_as_in_stock():
    x = images((8, 7, 5))
    mask = np.random.default_rng(0).uniform(size=(8, 7)) < 0.6
    stock, ours = layers.BatchNormalization(momentum=0.5), keras_ic.IC(0, momentum=0.5)
    np.testing.assert_allclose(
        to_numpy(ours(x, training=True, mask=mask)),
        to_numpy(stock(x, training=True, mask=mask)),
        atol=1e-5,
    )
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_mask_of_the_first_axes_is_broadcast(axes):
    x = images((4, 3, 2, 2, 5))
    mask = np.random.default_rng(3).uniform(size=x.shape[:axes]) < 0.6
    layer = keras_ic.IC(0, momentum=0.0)
    layer(x, training=True, mask=mask)
    np.testing.assert_allclose(layer.get_weights()[2], x[mask].reshape(-1, 5).mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.get_weights()[3], x[mask].reshape(-1, 5).var(0), rtol=1e-5)


def test_frames_that_a_recurrent_layer_masks():
    frames = keras.Input((3, 2, 2, 5))
    steps = layers.Reshape((3, 20))(frames)
    mask = layers.Masking(0.0).compute_mask(steps)
    outputs = keras_ic.IC(0.1, momentum=0.0)(frames, mask=mask)
    model = keras.Model(frames, outputs)
    x = images((4, 3, 2, 2, 5))
    x[:, 2] = 0
    model(x, training=True)
    np.testing.assert_allclose(
        model.layers[-1].get_weights()[2], x[:, :2].mean((0, 1, 2, 3)), rtol=1e-5
    )


@pytest.mark.parametrize("rate", [0.05, 0.9, 1 - 2.0**-17, 1 - 1e-9])
def test_what_is_kept_is_scaled_by_the_rate_that_the_mask_has(rate):
    layer = keras_ic.IC(rate, scale=False, center=False, epsilon=1e-12, seed=0)
    layer.monte_carlo = True
    y = to_numpy(layer(np.ones((1000, 300), "float32")))
    np.testing.assert_allclose(y[y != 0], 1 / (1 - realized_rate(rate)), rtol=1e-5)
    assert abs(y.mean() - 1) < 5 / np.sqrt(y.size * (1 - realized_rate(rate)))


def test_a_mask_that_hides_everything_teaches_nothing():
    layer = randomized(keras_ic.IC(0), (8, 7, 5))
    before = layer.get_weights()
    y = layer(images((8, 7, 5)), training=True, mask=np.zeros((8, 7), bool))
    assert np.all(np.isfinite(to_numpy(y)))
    for a, b in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masks_of_embeddings_arrive_and_pass_on():
    model = keras.Sequential(
        [
            keras.Input((None,)),
            layers.Embedding(9, 4, mask_zero=True),
            keras_ic.IC(0, momentum=0.0),
            layers.LSTM(3),
        ]
    )
    ids = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])
    model(ids, training=True)
    embedded = to_numpy(model.layers[0](ids))[ids > 0]
    np.testing.assert_allclose(model.layers[1].get_weights()[2], embedded.mean(0), atol=1e-6)
    np.testing.assert_allclose(model.layers[1].get_weights()[3], embedded.var(0), atol=1e-6)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_composition_matches_in_distribution(rate):
    x = images((256, 6, 6, 8))
    stock, ours = (
        randomized(layers.BatchNormalization(), x.shape),
        randomized(keras_ic.IC(rate, seed=1), x.shape),
    )
    normalized = to_numpy(stock(x, training=True))
    y = to_numpy(ours(x, training=True))
    n = y.size
    kept = y != 0
    np.testing.assert_allclose(y[kept], normalized[kept] / (1 - rate), rtol=2e-5, atol=2e-5)
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / n) + 2**-16
    drawn = normalized * (np.random.default_rng(0).uniform(size=x.shape) >= rate) / (1 - rate)
    for channel in range(x.shape[-1]):
        ours_here, theirs = y[..., channel], drawn[..., channel]
        spread = 5 * theirs.std() / np.sqrt(theirs.size)
        assert abs(ours_here.mean() - theirs.mean()) < spread
        assert abs(ours_here.var() / theirs.var() - 1) < 0.08
    # The statistics that are kept are those before the dropout.
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_without_scale_and_center_and_frozen_it_is_dropout_on_standardized_input():
    x = np.random.default_rng(0).normal(size=(512, 16)).astype("float32")
    layer = keras_ic.IC(0.25, scale=False, center=False, seed=2)
    layer.monte_carlo = True
    y = to_numpy(layer(x))
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / 0.75 / np.sqrt(1 + layer.epsilon), rtol=1e-5)


def test_inference_drops_nothing_and_frozen_neither_drops_nor_learns():
    x = images()
    layer = randomized(keras_ic.IC(0.5, seed=0), x.shape)
    want = to_numpy(layer(x))
    np.testing.assert_array_equal(to_numpy(layer(x, training=False)), want)
    before = [w.copy() for w in layer.get_weights()]
    layer.trainable = False
    assert layer.trainable_weights == []
    np.testing.assert_array_equal(to_numpy(layer(x, training=True)), want)
    for a, b in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    layer.trainable = True
    assert not np.array_equal(to_numpy(layer(x, training=True)), want)
    assert not np.array_equal(layer.get_weights()[2], before[2])


@pytest.mark.parametrize("trainable", [True, False])
def test_monte_carlo_keeps_dropout_on_and_the_statistics_frozen(trainable):
    x = images()
    layer = randomized(keras_ic.IC(0.2, seed=0, trainable=trainable), x.shape)
    plain = to_numpy(layer(x))
    before = [w.copy() for w in layer.get_weights()]
    layer.monte_carlo = True
    samples = np.stack([to_numpy(layer(x, training=False)) for _ in range(100)])
    for a, b in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    error = samples.mean(0) - plain
    assert np.abs(error).mean() < 3 * np.abs(plain).mean() * np.sqrt(0.25 / 100)
    layer.monte_carlo = False
    np.testing.assert_array_equal(to_numpy(layer(x)), plain)


def test_monte_carlo_through_predict():
    model = keras.Sequential([keras.Input((8,)), keras_ic.IC(0.5, seed=0), layers.Dense(2)])
    model.layers[0].monte_carlo = True
    x = images((32, 8))
    assert not np.array_equal(model.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize(
    "policy", ["float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"]
)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dtype_policies(policy, rate):
    if policy == "float64" and not HAS_FLOAT64:
        pytest.skip("JAX_ENABLE_X64 is not 1")
    x = images((16, 4, 4, 5)).astype("float64")
    layer = keras_ic.IC(rate, momentum=0.5, dtype=policy, seed=3)
    compute = keras.DTypePolicy(policy).compute_dtype
    y = layer(ops.cast(x, compute), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == compute
    assert {keras.backend.standardize_dtype(w.dtype) for w in layer.weights} == {
        keras.DTypePolicy(policy).variable_dtype
    }
    y, tolerance = to_numpy(y), {"float64": 1e-9, "float16": 1e-2, "bfloat16": 5e-2}[compute]
    exact = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + layer.epsilon)
    kept = y != 0
    np.testing.assert_allclose(
        y[kept], (exact / (1 - realized_rate(rate)))[kept], atol=tolerance, rtol=tolerance
    )
    moving = [to_numpy(w) for w in layer.weights]
    np.testing.assert_allclose(moving[2], x.mean((0, 1, 2)) / 2, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(
        moving[3], (1 + x.var((0, 1, 2))) / 2, atol=10 * tolerance, rtol=tolerance
    )


def test_large_halves_do_not_overflow():
    layer = keras_ic.IC(0, dtype="mixed_float16")
    y = layer(np.array([[30000.0], [-30000.0], [60000.0], [-60000.0]], "float16"), training=True)
    np.testing.assert_allclose(
        to_numpy(y).ravel(), np.array([1, -1, 2, -2]) / np.sqrt(2.5), rtol=2e-3
    )


@pytest.mark.parametrize(
    "noise_shape", [(None, 1, 1, None), (None, 1, 1, 8), [None, 6, 1, None], (64, 1, 6, 1)]
)
def test_noise_shape_shares_gates_along_its_axes_of_one(noise_shape):
    x = images() + 100  # the normalized value is never exactly 0
    dropped = to_numpy(keras_ic.IC(0.4, noise_shape=noise_shape, seed=0)(x, training=True)) == 0
    shape = tuple(
        size if wanted is None else wanted
        for size, wanted in zip(x.shape, noise_shape, strict=True)
    )
    first = dropped[tuple(slice(0, size) for size in shape)]
    np.testing.assert_array_equal(dropped, np.broadcast_to(first, x.shape))
    assert 0.25 < first.mean() < 0.55


def test_regularizers_constraints_and_initializers_reach_the_weights():
    layer = keras_ic.IC(
        gamma_initializer=keras.initializers.Constant(3.0),
        beta_initializer=keras.initializers.Constant(-2.0),
        moving_mean_initializer=keras.initializers.Constant(0.5),
        moving_variance_initializer=keras.initializers.Constant(4.0),
        gamma_regularizer=keras.regularizers.L2(0.1),
        beta_regularizer=keras.regularizers.L1(0.1),
        gamma_constraint=keras.constraints.MaxNorm(1.0),
        beta_constraint="non_neg",
    )
    layer.build((None, 2))
    np.testing.assert_allclose([w[0] for w in layer.get_weights()], [3, -2, 0.5, 4])
    np.testing.assert_allclose(
        [float(to_numpy(loss)) for loss in layer.losses], [0.1 * 18, 0.1 * 4], rtol=1e-6
    )
    assert isinstance(layer.gamma.constraint, keras.constraints.MaxNorm)
    assert isinstance(layer.beta.constraint, keras.constraints.NonNeg)


def test_in_functional_subclassed_shared_and_time_distributed_use():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.ic, self.dense = keras_ic.IC(0.1), layers.Dense(3)

        def call(self, x, training=None):
            return self.dense(self.ic(x, training=training))

    x = images((32, 6))
    net = Net()
    net.compile("sgd", "mse")
    net.fit(x, np.zeros((32, 3)), verbose=0)
    shared = keras_ic.IC(0.1)
    one, two = keras.Input((6,)), keras.Input((6,))
    functional = keras.Model([one, two], layers.Dense(3)(shared(one) + shared(two)))
    functional.compile("sgd", "mse")
    functional.fit([x, x], np.zeros((32, 3)), verbose=0)
    wrapped = keras.Sequential(
        [
            keras.Input((4, 6)),
            layers.TimeDistributed(keras_ic.IC(0.1)),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    wrapped.compile("sgd", "mse")
    wrapped.fit(images((32, 4, 6)), np.zeros((32, 3)), verbose=0)
    for model, layer in ((net, net.ic), (functional, shared), (wrapped, wrapped.layers[0].layer)):
        assert not np.allclose(layer.get_weights()[2], 0), model
        assert np.all(np.isfinite(layer.get_weights()[0]))


def test_output_shape_and_spec():
    layer = keras_ic.IC()
    assert layer.compute_output_shape((None, 4, 5)) == (None, 4, 5)
    assert layer(keras.Input((None, 5))).shape == (None, None, 5)
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 5"):
        layer(images((3, 4, 6)))
