"""Under tf.distribute: masks of their own on every replica, moving statistics that agree."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic

pytestmark = pytest.mark.tensorflow_only


def network(strategy, layer, width=6):
    with strategy.scope():
        model = keras.Sequential([keras.Input((width,)), layer, layers.Dense(2)])
        model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def inputs(rows, width=6):
    return np.random.default_rng(0).normal(size=(rows, width)).astype("float32") * 3 + 1


def on_each(strategy, variable):
    return [v.numpy() for v in strategy.experimental_local_results(variable.value)]


def test_replicas_draw_different_masks(strategy):
    import tensorflow as tf

    with strategy.scope():
        layer = keras_ic.IC(0.5, seed=1)
        layer.build((None, 50))

    @tf.function
    def step(x):
        return strategy.run(lambda x: layer(x, training=True), (x,))

    x = tf.constant(inputs(80, 50))
    drawn = []
    for _ in range(3):
        one, two = (y.numpy() == 0 for y in strategy.experimental_local_results(step(x)))
        drawn += [one, two]
    for i, a in enumerate(drawn):
        assert 0.45 < a.mean() < 0.55
        for b in drawn[:i]:
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)
    assert len({tuple(state) for state in on_each(strategy, layer.seed_generator.state)}) == 1


@pytest.mark.parametrize("synchronized", [False, True])
def test_moving_statistics_agree_and_are_those_of_all_replicas(strategy, synchronized, tmp_path):
    layer = keras_ic.IC(0.2, momentum=0.0, synchronized=synchronized, seed=0)
    model = network(strategy, layer)
    x = inputs(8)
    model.fit(x, x[:, :2], batch_size=8, verbose=0, shuffle=False)
    for variable in (layer.moving_mean, layer.moving_variance):
        one, two = on_each(strategy, variable)
        np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(layer.get_weights()[2], x.mean(0), rtol=1e-5)
    variance = x.var(0) if synchronized else (x[:4].var(0) + x[4:].var(0)) / 2
    np.testing.assert_allclose(layer.get_weights()[3], variance, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        saved.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


def test_synchronized_replicas_equal_one_device_with_the_whole_batch(strategy):
    x = inputs(64) + 50  # a mean far from zero: the sums must not lose digits
    results = []
    for here in (strategy, None):
        import tensorflow as tf

        keras.utils.set_random_seed(0)
        model = network(
            here or tf.distribute.get_strategy(), keras_ic.IC(0, synchronized=True, momentum=0.5)
        )
        history = model.fit(x, x[:, :2], batch_size=16, epochs=3, shuffle=False, verbose=0)
        results.append((history.history["loss"], model.get_weights()))
    (losses, weights), (losses_alone, weights_alone) = results
    np.testing.assert_allclose(losses, losses_alone, rtol=1e-4)
    for a, b in zip(weights, weights_alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise_shape", [None, (1, None), (None, 1)])
def test_synchronized_replicas_compute_what_one_device_does(strategy, noise_shape):
    """Masks, statistics and gradients; uneven and empty parts of the last batch included."""
    import tensorflow as tf

    x = inputs(21, 16)  # 8, 8 and 5, which two replicas get as 4 and 1
    alone = tf.distribute.OneDeviceStrategy("CPU:0")
    results = [steps(here, x, noise_shape) for here in (strategy, alone)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def steps(strategy, x, noise_shape):
    """Outputs, gradients and weights of a pass over `x` in batches of 8."""
    import tensorflow as tf

    with strategy.scope():
        layer = keras_ic.IC(0.3, synchronized=True, momentum=0.5, seed=7, noise_shape=noise_shape)
        layer.build((None, x.shape[1]))
        data = tf.data.Dataset.from_tensor_slices(x).batch(8)
        data = strategy.experimental_distribute_dataset(data)

    def of_replica(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.square(y) * tf.sin(3 * x))
        return y, tape.gradient(loss, x)

    @tf.function(input_signature=[data.element_spec])
    def step(batch):
        return strategy.run(of_replica, (batch,))

    seen = []
    for batch in data:
        for result in step(batch):
            parts = strategy.experimental_local_results(result)
            seen.append(np.concatenate([part.numpy() for part in parts]))
    return seen + layer.get_weights()


def test_synchronized_statistics_of_masked_batches(strategy):
    import tensorflow as tf

    with strategy.scope():
        layer = keras_ic.IC(0, momentum=0.0, synchronized=True)
        layer.build((None, 5, 3))
    x = inputs(40).reshape(-1, 5, 3)[:16]
    mask = np.random.default_rng(1).uniform(size=x.shape[:2]) < 0.5

    def halves(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[8 * context.replica_id_in_sync_group :][:8])
        )

    tf.function(
        lambda x, mask: strategy.run(lambda x, mask: layer(x, training=True, mask=mask), (x, mask))
    )(halves(x), halves(mask))
    np.testing.assert_allclose(layer.get_weights()[2], x[mask].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.get_weights()[3], x[mask].var(0), rtol=1e-5)


@pytest.mark.parametrize("synchronized", [False, True])
def test_a_replica_with_an_empty_batch_changes_nothing(strategy, synchronized):
    layer = keras_ic.IC(0.1, momentum=0.5, synchronized=synchronized, seed=0)
    model = network(strategy, layer)
    x = inputs(9)
    model.fit(x, x[:, :2], batch_size=8, epochs=2, verbose=0)
    for weight in model.get_weights():
        assert np.all(np.isfinite(weight))
