"""A prepared model on two logical CPUs, beside the same on one."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic import distribution, saving
from keras_ic.distribution.keras_fit import of_this_worker

pytestmark = [
    pytest.mark.tensorflow_only,
    pytest.mark.filterwarnings("ignore:.shuffle=True. was passed"),
]
LOSS = {
    "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "metrics": ["accuracy"],
}


def network(*middle):
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), *middle, layers.Dense(3)]
    )


def data(rows=40):
    x = np.random.default_rng(0).normal(size=(rows, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32")


def dataset(rows=40, batch=8, drop_remainder=False):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data(rows)).batch(
        batch, drop_remainder=drop_remainder
    )


def prepared(strategy, model, optimizer=None, **kwargs):
    with strategy.scope():
        model = distribution.prepare(model, **kwargs)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9) if optimizer is None else optimizer(), **LOSS
        )
    return model


def one():
    import tensorflow as tf

    return tf.distribute.get_strategy()


def close(a, b, **tolerance):
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, **{"rtol": 1e-5, "atol": 1e-6, **tolerance})


def on_each(strategy, variable):
    return [value.numpy() for value in strategy.experimental_local_results(variable.value)]


def test_the_copy_is_alike_and_the_given_model_untouched(strategy, tmp_path):
    model = network(keras_ic.IC(0.1, seed=1), layers.Dropout(0.2))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), **LOSS)
    model.fit(*data(), verbose=0)
    weights = model.get_weights()
    with strategy.scope():
        copy = distribution.prepare(model)
    close(copy, model, rtol=0, atol=0)
    assert type(copy) is type(model) and copy.get_config() == model.get_config()
    assert int(copy.optimizer.iterations.numpy()) == int(model.optimizer.iterations.numpy()) > 0
    for a, b in zip(copy.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    copy.fit(dataset(), verbose=0)
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    saving.save_model(copy, tmp_path / "copy.keras")
    loaded = saving.load_model(tmp_path / "copy.keras")
    np.testing.assert_allclose(
        loaded.predict(data()[0], verbose=0), copy(data()[0]), rtol=1e-5, atol=1e-6
    )


def test_what_is_excluded_from_weight_decay_stays_so(strategy):
    """Of an optimizer that is built, and of one in a LossScaleOptimizer."""
    model = network()
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel], var_names=["bias"])
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer), **LOSS)
    model.optimizer.build(model.trainable_variables)
    with strategy.scope():
        copy = distribution.prepare(model)
    for each in (model, copy):
        inner = each.optimizer.inner_optimizer
        with strategy.scope():
            decay = [inner._use_weight_decay(weight) for weight in each.trainable_variables]
        assert decay == [False, False, True, False]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_replicas_equal_one_device_also_on_an_uneven_last_batch(strategy, accumulate):
    """37 rows: the last batch of 8 has 5, of which two replicas get 4 and 1. Two parts of a batch
    have statistics of their own, hence no layer.
    """
    model = network(*([keras_ic.IC(0, synchronized=True)] if accumulate == 1 else []))
    alone, both = prepared(one(), model), prepared(strategy, model, accumulate=accumulate)
    histories = [
        each.fit(dataset(37), epochs=3, validation_data=dataset(37), verbose=0).history
        for each in (alone, both)
    ]
    for name in histories[0]:
        np.testing.assert_allclose(histories[1][name], histories[0][name], atol=1e-5)
    close(both, alone)


def test_one_prepared_device_equals_stock_keras():
    model = network(
        layers.BatchNormalization(), keras_ic.IC(0.1, seed=3), layers.Dropout(0.2, seed=5)
    )
    ours, stock = prepared(one(), model), keras.models.clone_model(model)
    stock.set_weights(model.get_weights())
    stock.compile(keras.optimizers.SGD(0.1, momentum=0.9), **LOSS)
    histories = [each.fit(dataset(), epochs=2, verbose=0).history for each in (ours, stock)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-5)
    close(ours, stock)


def test_accumulated_parts_equal_the_whole_batch():
    model = network()
    whole, parts = prepared(one(), model), prepared(one(), model, accumulate=4)
    histories = [each.fit(dataset(37), epochs=2, verbose=0).history for each in (whole, parts)]
    for name in histories[0]:
        np.testing.assert_allclose(histories[1][name], histories[0][name], atol=1e-5)
    close(parts, whole)


class LossOfEachStep(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])
        self.model.reset_metrics()


def test_with_dropout_two_replicas_draw_the_masks_of_one_device(strategy):
    """Steps that change the masks alone. Both replicas get the same examples, so that with equal
    masks the losses would be others.
    """
    import tensorflow as tf

    model = network(keras_ic.IC(0.5, synchronized=True, seed=1))
    steps = 20
    losses = {}
    for name, place in (("two", strategy), ("one", one())):
        x, y = (np.concatenate([values, values]) for values in data(4))
        batches = tf.data.Dataset.from_tensors((x, y)).repeat(steps)
        each = LossOfEachStep()
        prepared(place, model, lambda: keras.optimizers.SGD(0.0)).fit(
            batches, callbacks=[each], verbose=0
        )
        losses[name] = each.losses
    assert len(losses["one"]) == len(losses["two"]) == steps
    assert np.std(losses["one"]) > 0.01
    np.testing.assert_allclose(losses["two"], losses["one"], rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_xla_inside_the_step_gives_the_same(strategy):
    model = network(layers.BatchNormalization(), keras_ic.IC(0.1, seed=3))
    plain, compiled = (
        prepared(strategy, model, jit_compile=False),
        prepared(strategy, model, jit_compile=True),
    )
    histories = [
        each.fit(dataset(drop_remainder=True), epochs=2, verbose=0).history
        for each in (plain, compiled)
    ]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-5)
    close(compiled, plain)


def test_statistics_of_stock_batch_normalization_agree(strategy):
    model = prepared(
        strategy,
        network(
            layers.BatchNormalization(momentum=0.0, name="bn"),
            keras_ic.IC(0.1, momentum=0.0, name="ic"),
        ),
    )
    model.fit(dataset(8), verbose=0, epochs=1)
    for name in ("bn", "ic"):
        for variable in (model.get_layer(name).moving_mean, model.get_layer(name).moving_variance):
            first, second = on_each(strategy, variable)
            np.testing.assert_array_equal(first, second)
    # After the first and only step they are the mean of those of the two halves.
    again = prepared(strategy, network(layers.BatchNormalization(momentum=0.0, name="bn")))
    inputs = keras.Model(again.inputs[0], again.layers[0].output)(data(8)[0]).numpy()
    again.fit(dataset(8), verbose=0)
    np.testing.assert_allclose(
        again.get_layer("bn").moving_variance.numpy(),
        (inputs[:4].var(0) + inputs[4:].var(0)) / 2,
        rtol=1e-4,
        atol=1e-6,
    )


def test_replicas_draw_different_masks_as_often_as_they_should(strategy):
    """Each drops half of the values, and the two agree on half of them."""
    import tensorflow as tf

    with strategy.scope():
        model = distribution.prepare(
            keras.Sequential([keras.Input((200,)), keras_ic.IC(0.5, seed=1)])
        )
    layer = model.layers[0]
    masks = strategy.run(
        lambda x: layer(x, training=True) == 0,
        (tf.constant(np.random.default_rng(0).normal(size=(50, 200)).astype("float32")),),
    )
    first, second = (mask.numpy() for mask in strategy.experimental_local_results(masks))
    for mask in (first, second):
        assert abs(mask.mean() - 0.5) < 5 * 0.5 / 100
    assert abs((first == second).mean() - 0.5) < 5 * 0.5 / 100


def test_stock_callbacks(strategy, tmp_path):
    def optimizer():
        return keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)

    model = prepared(strategy, network(keras_ic.IC(0.1)), optimizer)
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
        keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False),
        keras.callbacks.EarlyStopping(patience=5),
        keras.callbacks.ReduceLROnPlateau(patience=1),
        keras.callbacks.SwapEMAWeights(),
    ]
    model.fit(dataset(), validation_data=dataset(), epochs=2, callbacks=callbacks, verbose=0)
    assert (tmp_path / "best.keras").exists() and list((tmp_path / "logs").rglob("events*"))
    again = prepared(strategy, network(keras_ic.IC(0.1)), optimizer)
    history = again.fit(
        dataset(),
        epochs=3,
        callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")],
        verbose=0,
    )
    assert history.epoch == [2]


class OwnStep(keras.Model):
    def train_step(self, data):
        x, y = data
        self.compiled_with(x, y)
        return {"loss": 3.0 * keras.ops.ones(())}

    def compiled_with(self, x, y):
        self.seen = True


def test_a_train_step_of_its_own_is_kept(strategy):
    inputs = keras.Input((6,))
    model = prepared(strategy, OwnStep(inputs, layers.Dense(3)(inputs)))
    assert model.fit(dataset(), verbose=0).history["loss"] == [3.0] and model.seen


def test_train_on_batch_and_predict(strategy):
    model = prepared(strategy, network())
    x, y = data(8)
    before = model.test_on_batch(x, y, return_dict=True)["loss"]
    for _ in range(5):
        model.train_on_batch(x, y)
    assert model.test_on_batch(x, y, return_dict=True)["loss"] < before
    assert model.predict(x, verbose=0).shape == (8, 3)


def test_parts_and_replicas_without_examples_change_nothing(strategy):
    """A last batch of 2 in 4 parts, and one of 1 on two replicas, with a layer that makes nan of no
    examples.
    """
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(3)]
    )
    for where, rows, parts in ((one(), 10, 4), (strategy, 9, 1)):
        each = prepared(where, model, accumulate=parts)
        each.fit(dataset(rows), verbose=0)
        assert all(np.isfinite(weight).all() for weight in each.get_weights())


def test_gradients_of_an_embedding_are_accumulated():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(7, 3),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    x, y = np.random.default_rng(0).integers(0, 7, (16, 4)), np.arange(16) % 3
    whole, parts = prepared(one(), model), prepared(one(), model, accumulate=2)
    for each in (whole, parts):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    close(parts, whole)


class Checkpoint(keras.callbacks.ModelCheckpoint):
    pass


def test_subclasses_of_callbacks_that_write_are_the_chiefs_too():
    stopping = keras.callbacks.EarlyStopping()
    given = [Checkpoint("best.keras"), stopping]
    assert of_this_worker(given, is_chief=True) == given
    assert of_this_worker(given, is_chief=False) == [stopping]


def test_bad_arguments(strategy):
    with pytest.raises(ValueError, match="Received: accumulate=0"):
        distribution.prepare(network(), accumulate=0)
    with pytest.raises(ValueError, match="Received: jit_compile='yes'"):
        distribution.prepare(network(), jit_compile="yes")
    with pytest.raises(
        ValueError, match=r"must be a keras\.Model\. Received: model='model\.keras'"
    ):
        distribution.prepare("model.keras")
    with pytest.raises(ValueError, match="must be built"):
        distribution.prepare(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(ValueError, match="Received: synchronized layers ic_x"):
        distribution.prepare(network(keras_ic.IC(synchronized=True, name="ic_x")), jit_compile=True)

    class Closed(keras.Model):
        def __init__(self, width):
            super().__init__()
            self.dense = layers.Dense(width)

        def call(self, x):
            return self.dense(x)

    closed = Closed(2)
    closed(np.ones((1, 3), "float32"))
    with pytest.raises(
        ValueError, match=r"cannot be copied .*Received: model 'closed' of type Closed"
    ):
        distribution.prepare(closed)
    model = distribution.prepare(network())
    model.compile("sgd", **LOSS, steps_per_execution=2)
    with pytest.raises(ValueError, match="Received: steps_per_execution=2"):
        model.fit(dataset(), verbose=0)
