"""One step of a prepared model against stock Keras on one device: the same logs, weights and
states, whatever the parts, the replicas and the compiler.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_ic import distribution

pytestmark = [
    pytest.mark.tensorflow_only,
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
# Four long and four short sequences a batch of 8, the short ones in its second half.
LENGTHS = np.array([7] * 4 + [2] * 4 + [8] * 4 + [1] * 4)
TOKENS = np.where(np.arange(8) < LENGTHS[:, None], RNG.integers(1, 9, (16, 8)), 0)
LABELS = (TOKENS + np.arange(8)) % 3
STEP = {
    "parts that do not fit": {"accumulate": 3},
    "XLA": {"jit_compile": True},
    "parts and XLA": {"accumulate": 2, "jit_compile": True},
    "eager": {"accumulate": 2, "run_eagerly": True},
}
EVERY_STEP = pytest.mark.parametrize("step", STEP)


def stock(model, compiled):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile(**compiled())
    return copy


def prepared(model, compiled, strategy=None, run_eagerly=False, **kwargs):
    import tensorflow as tf

    with (strategy or tf.distribute.get_strategy()).scope():
        copy = distribution.prepare(model, **kwargs)
        copy.compile(**compiled(), run_eagerly=run_eagerly)
    return copy


def fit(model, x, y, **kwargs):
    import tensorflow as tf

    data = (x, y, kwargs["sample_weight"]) if kwargs else (x, y)
    batches = tf.data.Dataset.from_tensor_slices(data).batch(8, drop_remainder=True)
    return model.fit(batches, epochs=2, shuffle=False, verbose=0).history


def assert_alike(one, other, x, y, **kwargs):
    """Trained alike, two models have the same logs and the same variables after it."""
    expected, found = fit(one, x, y, **kwargs), fit(other, x, y, **kwargs)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    for left, right in zip(one.variables, other.variables, strict=True):
        if left.name != "seed_generator_state" and left.synchronization != "on_read":
            np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-5, err_msg=left.path)


@keras.saving.register_keras_serializable("tests")
class Counting(layers.Layer):
    """Writes what a forward pass may write: a count, an average, and a metric."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = self.add_weight(name="count", dtype="int32", trainable=False)
        self.average = self.add_weight(shape=(6,), name="average", trainable=False)
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, x, training=False):
        if training:
            self.count.assign_add(1)
            self.average.assign(0.9 * self.average + 0.1 * ops.mean(x, 0))
        self.seen.update_state(ops.sum(ops.abs(x), -1))
        return x


def two_outputs():
    inputs = keras.Input((6,))
    return keras.Model(inputs, {"o": layers.Dense(2)(inputs), "p": layers.Dense(1)(inputs)})


def two_losses():
    return {
        "optimizer": keras.optimizers.SGD(0.05),
        "loss": {"o": "mse", "p": "mae"},
        "loss_weights": {"o": 1.0, "p": 3.0},
        "metrics": {"o": "mae"},
    }


@EVERY_STEP
def test_losses_of_several_outputs_are_logged(step):
    model, y = two_outputs(), {"o": X[:, :2] + 1, "p": X[:, :1]}
    assert_alike(stock(model, two_losses), prepared(model, two_losses, **STEP[step]), X, y)


def test_losses_of_several_outputs_on_two_replicas(strategy):
    model, y = two_outputs(), {"o": X[:, :2] + 1, "p": X[:, :1]}
    assert_alike(stock(model, two_losses), prepared(model, two_losses, strategy), X, y)


def mse():
    return {"optimizer": keras.optimizers.SGD(0.05), "loss": "mse"}


@pytest.mark.parametrize("step", ["XLA", "parts and XLA"])
def test_what_a_layer_writes(step):
    """Two parts of a batch have averages of their own, and are two calls."""
    counting = Counting()
    model = keras.Sequential([keras.Input((6,)), counting, layers.Dense(1)])
    one, other = stock(model, mse), prepared(model, mse, **STEP[step])
    if step == "XLA":
        assert_alike(one, other, X, X[:, :1])
    else:
        logs = [fit(each, X, X[:, :1]) for each in (one, other)]
        np.testing.assert_allclose(logs[0]["seen"], logs[1]["seen"], rtol=1e-5)
        counts = [int(each.layers[0].count.numpy()) for each in (one, other)]
        assert counts == [4, 8]


def test_what_a_layer_writes_on_two_replicas(strategy):
    model = keras.Sequential([keras.Input((6,)), Counting(), layers.Dense(1)])
    assert_alike(stock(model, mse), prepared(model, mse, strategy), X, X[:, :1])


@pytest.mark.parametrize("step", ["XLA", "eager"])
def test_a_weight_that_a_layer_writes(step):
    """SpectralNormalization divides its kernel by a norm, in its place."""
    settings = {**STEP[step], "accumulate": 1}
    normalized = layers.SpectralNormalization(layers.Dense(4, kernel_regularizer="l2"))
    model = keras.Sequential([keras.Input((6,)), normalized, layers.Dense(1)])
    assert_alike(stock(model, mse), prepared(model, mse, **settings), X, X[:, :1])


@keras.saving.register_keras_serializable("tests")
class OwnLoss(keras.Model):
    """A model that computes a loss of its own, and logs it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.own = keras.metrics.Mean(name="own")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean(ops.square(y - y_pred))
        self.own.update_state(loss)
        return loss


# Of parts that do not fit the means are not those of the batch.
@pytest.mark.parametrize("step", ["XLA", "parts and XLA"])
def test_a_metric_that_compute_loss_updates(step):
    inputs = keras.Input((6,))
    model = OwnLoss(inputs, layers.Dense(1)(inputs))
    one = OwnLoss.from_config(model.get_config())
    one.set_weights(model.get_weights())
    one.compile(**mse())
    assert_alike(one, prepared(model, mse, **STEP[step]), X, X[:, :1])


def tagger(masked=True):
    return keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            layers.Embedding(9, 4, mask_zero=masked),
            layers.Dense(3),
        ]
    )


def tagging(reduction="sum_over_batch_size"):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)

    def compiled():
        return {
            "optimizer": keras.optimizers.SGD(0.05),
            "loss": loss,
            "metrics": ["accuracy"],
            "weighted_metrics": [keras.metrics.SparseCategoricalAccuracy(name="weighted")],
        }

    return compiled


@EVERY_STEP
def test_masks_reach_the_loss_and_the_metrics(step):
    model = tagger()
    assert_alike(stock(model, tagging()), prepared(model, tagging(), **STEP[step]), TOKENS, LABELS)


def test_masks_on_two_replicas(strategy):
    model = tagger()
    assert_alike(
        stock(model, tagging()),
        prepared(model, tagging(), strategy, accumulate=2),
        TOKENS,
        LABELS,
    )


@pytest.mark.parametrize(
    ("reduction", "weighted", "masked"),
    [
        ("sum_over_batch_size", True, True),
        ("sum", True, True),
        ("sum", False, False),
        ("mean_with_sample_weight", True, True),
        ("mean_with_sample_weight", False, True),
        ("mean_with_sample_weight", True, False),
    ],
)
def test_every_reduction_is_that_of_the_whole_batch(reduction, weighted, masked):
    model = tagger(masked)
    kwargs = {"sample_weight": RNG.uniform(size=(16, 8)).astype("float32")} if weighted else {}
    compiled = tagging(reduction)
    assert_alike(
        stock(model, compiled),
        prepared(model, compiled, accumulate=3),
        TOKENS,
        LABELS,
        **kwargs,
    )


@pytest.mark.parametrize(
    "loss", [lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred)), "mse"]
)
def test_losses_that_are_added_or_already_reduced(strategy, loss):
    """Penalties of weights count once, those of activations and a scalar loss as means."""

    def compiled():
        return {"optimizer": keras.optimizers.SGD(0.05), "loss": loss}

    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, kernel_regularizer="l2"),
            layers.ActivityRegularization(0.1),
            layers.Dense(1),
        ]
    )
    one = stock(model, compiled)
    assert_alike(one, prepared(model, compiled, strategy, accumulate=2), X, X[:, :1])


def test_the_values_before_a_softmax_reach_the_metrics():
    """Cross entropies of certain and wrong predictions, which the softmax alone does not tell."""

    def compiled():
        return {
            "optimizer": keras.optimizers.SGD(0.0),
            "loss": "sparse_categorical_crossentropy",
            "metrics": [keras.metrics.SparseCategoricalCrossentropy(name="entropy")],
        }

    model = keras.Sequential([keras.Input((6,)), layers.Dense(3), layers.Softmax()])
    model.layers[0].kernel.assign(100 * model.layers[0].kernel)
    y = np.arange(16) % 3
    one, other = stock(model, compiled), prepared(model, compiled, accumulate=2, jit_compile=True)
    assert_alike(one, other, X, y)
    assert fit(one, X, y)["entropy"][0] > 20
