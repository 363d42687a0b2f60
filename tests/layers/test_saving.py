"""Every way in which Keras writes a layer down and reads it back."""

import json
import pickle
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from tests.autodiff import to_numpy

EVERYTHING = {
    "rate": 0.125,
    "axis": 1,
    "momentum": 0.5,
    "epsilon": 1e-4,
    "center": True,
    "scale": True,
    "beta_initializer": "ones",
    "gamma_initializer": keras.initializers.Constant(2.0),
    "moving_mean_initializer": "ones",
    "moving_variance_initializer": "ones",
    "beta_regularizer": keras.regularizers.L2(0.01),
    "gamma_regularizer": "l1",
    "beta_constraint": "non_neg",
    "gamma_constraint": keras.constraints.MaxNorm(3.0),
    "noise_shape": (None, 1, 1, None),
    "seed": 11,
    "name": "my_ic",
    "dtype": "mixed_bfloat16",
    "trainable": False,
}


def network(**options):
    """A compiled network whose weights, statistics and random stream are far from their start."""
    options = {"rate": 0.2, "seed": 3, **options}
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "relu"), keras_ic.IC(**options), layers.Dense(2)]
    )
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 2, w.shape) for w in model.get_weights()])
    x = rng.normal(size=(32, 6)).astype("float32")
    model(x, training=True)
    return model, x


def outputs(model, x):
    return to_numpy(model(x))


def assert_same_model(a, b, x):
    np.testing.assert_array_equal(outputs(a, x), outputs(b, x))
    # The same masks come next.
    np.testing.assert_array_equal(
        to_numpy(a.layers[1](x[:, :5], training=True)),
        to_numpy(b.layers[1](x[:, :5], training=True)),
    )


def test_config_round_trip():
    layer = keras_ic.IC(**EVERYTHING)
    config = layer.get_config()
    again = keras_ic.IC.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == {**config, "noise_shape": (None, 1, 1, None)}
    assert again.dtype_policy.name == "mixed_bfloat16"
    assert not again.trainable
    for name in EVERYTHING:
        assert name in config, name
    restored = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(restored) is keras_ic.IndependentComponent
    assert restored.get_config() == config


def test_keras_file_with_safe_mode(tmp_path):
    model, x = network()
    model.save(tmp_path / "model.keras")
    assert_same_model(model, keras.models.load_model(tmp_path / "model.keras", safe_mode=True), x)


def test_weights_file(tmp_path):
    model, x = network()
    model.save_weights(tmp_path / "model.weights.h5")
    other, _ = network(seed=4)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_model(model, other, x)


def test_pickle():
    model, x = network()
    assert_same_model(model, pickle.loads(pickle.dumps(model)), x)


def test_clone_model_gives_the_same_stream_where_a_seed_was_given_and_another_where_not():
    x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    for seed, same in ((3, True), (None, False)):
        model, _ = network(seed=seed)
        clone = keras.models.clone_model(model)
        clone.build((None, 6))
        fresh = keras_ic.IC(0.2, seed=seed)
        first = to_numpy(clone.layers[1](x, training=True)) == 0
        assert np.array_equal(first, to_numpy(fresh(x, training=True)) == 0) is same


@pytest.mark.parametrize(
    "dropped",
    [
        ["noise_shape", "seed"],
        ["synchronized"],
        ["rate", "momentum", "gamma_constraint", "seed", "noise_shape"],
    ],
)
def test_files_from_before_an_argument_existed_load_with_its_default(tmp_path, dropped):
    model, x = network(seed=None)
    model.save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                config = json.loads(content)
                for layer in config["config"]["layers"]:
                    if layer["class_name"] == "IndependentComponent":
                        for argument in dropped:
                            del layer["config"][argument]
                content = json.dumps(config)
            old.writestr(name, content)
    loaded = keras.models.load_model(tmp_path / "old.keras")
    defaults = keras_ic.IC().get_config()
    for argument in dropped:
        assert loaded.layers[1].get_config()[argument] == defaults[argument]
    np.testing.assert_array_equal(outputs(loaded, x), outputs(model, x))


def test_weight_files_move_between_layers_with_and_without_dropout(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    for rate, other_rate in ((0.2, 0), (0, 0.2)):
        source, _ = network(rate=rate)
        target, _ = network(rate=other_rate, seed=4)
        source.save_weights(tmp_path / "one.weights.h5")
        target.load_weights(tmp_path / "one.weights.h5")
        np.testing.assert_array_equal(outputs(target, x), outputs(source, x))


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("options", [{}, {"axis": 1}, {"dtype": "mixed_float16"}])
def test_export_to_saved_model(tmp_path, options):
    import tensorflow as tf

    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(6, 3, padding="same"),
            keras_ic.IC(0.2, **options),
            layers.Conv2D(2, 3),
        ]
    )
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")
    model(x, training=True)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(
        to_numpy(exported.serve(tf.constant(x))), outputs(model, x), rtol=1e-4, atol=1e-5
    )
    layer = keras.layers.TFSMLayer(tmp_path / "exported", call_endpoint="serve")
    np.testing.assert_allclose(to_numpy(layer(x)), outputs(model, x), rtol=1e-4, atol=1e-5)
