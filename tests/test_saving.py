import os
import signal
import zipfile

import keras
import numpy as np
import pytest

import keras_ic
from keras_ic.saving import load_model, replacing, restore, save_model

DAMAGED = r"^This is not a complete Keras model file: .* Received: '.*\.keras'$"


@pytest.fixture
def model():
    model = keras.Sequential(
        [keras.Input((4,)), keras_ic.IC(0.1, seed=0), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.random.RandomState(0).rand(16, 4), np.arange(16) % 3, epochs=1, verbose=0)
    return model


def test_a_loaded_model_goes_on_as_the_saved_one(tmp_path, model):
    x, y = np.random.RandomState(1).rand(16, 4), np.arange(16) % 3
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(str(tmp_path / "model.keras"))
    for each in (model, loaded):
        each.fit(x, y, epochs=2, shuffle=False, verbose=0)
    for one, two in zip(
        model.weights + model.optimizer.variables,
        loaded.weights + loaded.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(two)
        )
    assert os.listdir(tmp_path) == ["model.keras"]


def test_a_failed_save_leaves_the_old_file(tmp_path, model, monkeypatch):
    path = tmp_path / "model.keras"
    save_model(model, path)
    before = path.read_bytes()

    def save_half(self, new):
        new.write_bytes(before[: len(before) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Sequential, "save", save_half)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.keras"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to kill")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_killed_while_replacing_leaves_the_old_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    child = os.fork()
    if not child:
        with replacing(path) as new:
            new.write_text("ne")
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert path.read_text() == "old"
    with replacing(path) as new:
        new.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["notes.txt"]  # what the killed process had left is gone as well


def test_permissions_are_those_of_a_plain_file(tmp_path, model):
    save_model(model, tmp_path / "model.keras")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "model.keras").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege elsewhere")
def test_a_link_stays_and_leads_to_the_new_file(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "notes.txt").symlink_to(tmp_path / "disk" / "notes.txt")
    for text in ("first", "second"):
        with replacing(tmp_path / "notes.txt") as new:
            new.write_text(text)
        assert (tmp_path / "notes.txt").is_symlink() and (
            tmp_path / "disk" / "notes.txt"
        ).read_text() == text
    assert os.listdir(tmp_path / "disk") == ["notes.txt"]


def test_cut_files(tmp_path, model):
    whole = tmp_path / "model.keras"
    save_model(model, whole)
    content = whole.read_bytes()
    cut = tmp_path / "cut.keras"
    lengths = {
        0,
        1,
        3,
        4,
        22,
        30,
        1000,
        len(content) // 4,
        len(content) // 2,
        len(content) - 200,
        len(content) - 22,
        len(content) - 1,
    }
    for length in sorted(lengths):
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=DAMAGED):
            load_model(cut)
    assert load_model(whole).output_shape == (None, 3)


def test_overwritten_files(tmp_path, model):
    save_model(model, tmp_path / "model.keras")
    content = (tmp_path / "model.keras").read_bytes()
    path = tmp_path / "zeros.keras"
    for start in range(0, len(content) - 64, len(content) // 20):
        path.write_bytes(content[:start] + b"\xff" * 64 + content[start + 64 :])
        with pytest.raises(ValueError, match=DAMAGED):
            load_model(path)


@pytest.mark.parametrize("member", [None, "config.json", "model.weights.h5"])
def test_other_archives(tmp_path, model, member):
    save_model(model, tmp_path / "model.keras")
    path = tmp_path / "other.keras"
    with zipfile.ZipFile(tmp_path / "model.keras") as whole, zipfile.ZipFile(path, "w") as other:
        for name in whole.namelist():
            if member is not None and name != member:
                other.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=DAMAGED):
        load_model(path)


@pytest.mark.parametrize("content", [b"no model", b"{}", b"\x89HDF\r\n\x1a\n" + bytes(1000)])
def test_other_files(tmp_path, content):
    (tmp_path / "other.keras").write_bytes(content)
    with pytest.raises(ValueError, match=DAMAGED):
        load_model(tmp_path / "other.keras")


def test_config_that_describes_no_model(tmp_path, model):
    save_model(model, tmp_path / "model.keras")
    path = tmp_path / "other.keras"
    for config in ("[1, 2]", "{", "3"):
        with (
            zipfile.ZipFile(tmp_path / "model.keras") as whole,
            zipfile.ZipFile(path, "w") as other,
        ):
            other.writestr("config.json", config)
            other.writestr("model.weights.h5", whole.read("model.weights.h5"))
        with pytest.raises(ValueError, match=DAMAGED):
            load_model(path)


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "folder.keras").mkdir()
    for path in (tmp_path / "nothing.keras", tmp_path / "folder.keras"):
        with pytest.raises(
            ValueError,
            match=r"^There is no such model file; check the path\. Received: '.*\.keras'$",
        ):
            load_model(path)


def test_other_endings(tmp_path, model):
    message = r"^The name of a model file must end in `\.keras`\. Received: '.*model\.h5'$"
    with pytest.raises(ValueError, match=message):
        save_model(model, tmp_path / "model.h5")
    with pytest.raises(ValueError, match=message):
        save_model(model, tmp_path / "of.model.h5")
    with pytest.raises(ValueError, match=r"must end in `\.keras`\. Received: '.*model\.txt'$"):
        load_model(tmp_path / "model.txt")
    assert os.listdir(tmp_path) == []


def with_stock_dropout():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8),
            keras.layers.Dropout(0.5, seed=1),
            keras_ic.IC(0.1),
            keras.layers.Dense(3),
        ]
    )
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable in model.trainable_variables if variable.name != "kernel"]
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    return model


def test_random_states_of_stock_layers_and_what_is_excluded_from_decay_go_on_too(tmp_path):
    x, y = np.random.RandomState(1).rand(16, 4).astype("float32"), np.arange(16) % 3
    saved, restored = with_stock_dropout(), with_stock_dropout()
    saved.fit(x, y, epochs=2, verbose=0)
    save_model(saved, tmp_path / "model.keras")
    restore(restored, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    one, two = (
        keras.ops.convert_to_numpy(keras.ops.stop_gradient(each(x, training=True)))
        for each in (loaded, saved)
    )
    np.testing.assert_array_equal(one, two)  # one mask each
    restored(x, training=True)
    for each in (saved, restored):
        each.fit(x, y, epochs=2, shuffle=False, verbose=0)
    for one, two in zip(
        saved.variables + saved.optimizer.variables,
        restored.variables + restored.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(two)
        )


def test_an_ic_layer_whose_rate_has_come_to_0_has_no_stream_any_more(tmp_path):
    """As after annealing, and the first of rates that rise from 0."""
    layers = [
        keras.layers.Dense(8),
        keras_ic.IC(0.1, seed=1),
        keras.layers.Dropout(0.2, seed=2),
        keras_ic.IC(0.1, seed=3),
        keras.layers.Dense(3),
    ]
    saved = keras.Sequential([keras.Input((4,)), *layers])
    x = np.ones((2, 4), "float32")
    saved(x, training=True)
    layers[1].rate = 0.0
    save_model(saved, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert [layer.rate for layer in loaded.layers if isinstance(layer, keras_ic.IC)] == [0.0, 0.1]
    one, two = (
        keras.ops.convert_to_numpy(keras.ops.stop_gradient(each(x, training=True)))
        for each in (saved, loaded)
    )
    np.testing.assert_array_equal(one, two)  # the masks of the Dropout and of the other go on


def test_random_states_of_negative_seeds_and_of_a_dropout_turned_off(tmp_path):
    seed = 1 if keras.backend.backend() == "jax" else -1  # which Keras has no place for on JAX
    dropout = [keras.layers.Dropout(0.2, seed=seed), keras.layers.Dropout(0.2, seed=3)]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), *dropout])
    dropout[1].rate = 0.0
    x = np.ones((2, 4), "float32")
    model(x, training=True)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    other = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8),
            keras.layers.Dropout(0.2, seed=seed),
            keras.layers.Dropout(0),
        ]
    )
    restore(other, tmp_path / "model.keras")
    expected = keras.ops.convert_to_numpy(dropout[0].seed_generator.state)
    for each in (loaded, other):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(each.layers[1].seed_generator.state), expected
        )


def test_files_of_keras_itself_and_for_keras_itself(tmp_path):
    model = with_stock_dropout()
    model.save(tmp_path / "stock.keras")
    for variable in (other := with_stock_dropout()).weights:
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    restore(other, tmp_path / "stock.keras")
    save_model(model, tmp_path / "model.keras")
    for read in (
        load_model(tmp_path / "stock.keras"),
        keras.models.load_model(tmp_path / "model.keras"),
        other,
    ):
        for one, two in zip(model.weights, read.weights, strict=True):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(two)
            )


def test_restoring_another_model(tmp_path, model):
    save_model(with_stock_dropout(), tmp_path / "model.keras")
    other = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8),
            keras.layers.Dropout(0),
            keras_ic.IC(0),
            keras.layers.Dense(3),
        ]
    )
    with pytest.raises(
        ValueError,
        match=(
            r"The file is of a model with 1 random streams, not 0; take its own. Received:"
            r" '.*model.keras'$"
        ),
    ):
        restore(other, tmp_path / "model.keras")
    with pytest.raises(ValueError, match="There is no such model file"):
        restore(other, tmp_path / "none.keras")


@pytest.mark.parametrize("widths", [(5, 3), (5,), (5, 4, 4)])
def test_what_does_not_fit_changes_nothing(tmp_path, widths):
    def dense(widths):
        model = keras.Sequential(
            [keras.Input((4,)), *(keras.layers.Dense(width) for width in widths)]
        )
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    save_model(dense((5, 4)), tmp_path / "model.keras")
    other = dense(widths)
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in other.variables]
    with pytest.raises(ValueError, match=r"(?s)take its own. Received: '.*model.keras'$"):
        restore(other, tmp_path / "model.keras")
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


def test_what_is_no_model_and_no_path(tmp_path):
    with pytest.raises(ValueError, match=r"must be a keras.Model. Received"):
        save_model("x", tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"`path` must be a path.*Received: path=None"):
        load_model(None)


@pytest.mark.filterwarnings("ignore:.*HDF5:UserWarning", "ignore:.*legacy:UserWarning")
def test_the_older_format_is_read_as_far_as_keras_can(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    model.save(tmp_path / "model.h5")
    loaded = load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(loaded.get_layer("dense").kernel),
        keras.ops.convert_to_numpy(model.get_layer("dense").kernel),
    )
    (tmp_path / "damaged.h5").write_bytes(b"no file")
    for name, message in (
        ("damaged.h5", r"or convert it where it loads, .*Received: '.*h5'"),
        ("missing.h5", r"There is no such model file; .*Received: '.*h5'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*HDF5:UserWarning", "ignore:.*legacy:UserWarning")
@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_a_lambda_is_refused_with_the_way_to_allow_it(tmp_path, name):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x)])
    model.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"allow its lambda by `keras\.config\.enable_unsafe"):
        load_model(tmp_path / name)
