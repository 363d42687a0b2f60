"""Damaged and hostile `.keras` files: one clear error or the right model, never code that runs."""

import contextlib
import io
import json
import pickle
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_ic
from keras_ic import saving
from keras_ic.cli import main

FUZZ = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model file, its bytes, and what the model predicts."""
    path = tmp_path_factory.mktemp("faults") / "model.keras"
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras_ic.IC(0.1, name="ic"), keras.layers.Dense(3, name="dense")]
    )
    saving.save_model(model, path)
    return path, path.read_bytes(), model.predict(X, verbose=0)


def is_refused(path, predictions):
    """Whether the file is refused in one clear line; if not, it holds the right model."""
    try:
        model = saving.load_model(path)
    except ValueError as error:
        assert "\n" not in str(error) and str(error).endswith(f"Received: {str(path)!r}")
        return True
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(X))), predictions
    )
    return False


def inspected(path):
    """The exit code of `keras-ic inspect`, and its lines on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["inspect", str(path)])
    return code, err.getvalue().splitlines()


def with_members(source, target, **members):
    """A copy of an archive with some members, by the first part of their names, replaced."""
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(target, "w") as new:
        for name in given.namelist():
            new.writestr(name, members.get(name.split(".")[0], given.read(name)))
    return target


def test_cut_at_every_percent(saved, tmp_path):
    _, content, predictions = saved
    path = tmp_path / "cut.keras"
    for percent in range(100):
        path.write_bytes(content[: len(content) * percent // 100])
        assert is_refused(path, predictions)
    assert inspected(path)[0] == 2 and len(inspected(path)[1]) == 1


@settings(FUZZ, max_examples=150)
@given(
    place=st.floats(0, 1, exclude_max=True),
    flips=st.integers(1, 255),
    length=st.sampled_from([1, 1, 1, 2, 16]),
)
def test_flipped_bytes(saved, tmp_path_factory, place, flips, length):
    _, content, predictions = saved
    start = int(place * len(content))
    changed = bytes(byte ^ flips for byte in content[start : start + length])
    path = tmp_path_factory.getbasetemp() / "flipped.keras"
    path.write_bytes(content[:start] + changed + content[start + length :])
    is_refused(path, predictions)


def places(value, path=()):
    """The places in a JSON value, each as the keys that lead there."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in inner:
        yield (*path, key)
        yield from places(part, (*path, key))


# Numbers are small, so that a network of this size is all that they can ask for.
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 5),
    st.sampled_from([0.5, "", "x", "relu", "keras", "Dense", [], {}, [1, 2], [None, 3]]),
)


@settings(FUZZ, max_examples=120)
@given(place=st.floats(0, 1, exclude_max=True), is_deleted=st.booleans(), value=VALUES)
def test_sound_archives_with_another_configuration(
    saved, tmp_path_factory, place, is_deleted, value
):
    source, *_ = saved
    with zipfile.ZipFile(source) as archive:
        config = json.loads(archive.read(saving.CONFIG))
    found = list(places(config))
    *parents, last = found[int(place * len(found))]
    part = config
    for key in parents:
        part = part[key]
    if is_deleted:
        del part[last]
    else:
        part[last] = value
    path = with_members(
        source, tmp_path_factory.getbasetemp() / "other.keras", config=json.dumps(config)
    )
    code, error = inspected(path)
    assert (code, len(error)) in ((0, 0), (2, 1)), error
    if code:
        assert "Received: " in error[0]


@settings(FUZZ, max_examples=40)
@given(states=st.recursive(VALUES, lambda part: st.lists(part, max_size=3), max_leaves=6))
def test_sound_archives_with_other_random_states(saved, tmp_path_factory, states):
    path = with_members(
        saved[0],
        tmp_path_factory.getbasetemp() / "states.keras",
        keras_ic_random_states=json.dumps(states),
    )
    is_refused(path, saved[2])


BOMBS = {
    saving.RANDOM_STATES: ("[" + "[0, 0]," * 10**7)[:-1] + "]",
    saving.CONFIG: '{"class_name": "Sequential", "config": [' + "0," * 10**7 + "0]}",
    "metadata.json": " " * 2**21 + "{}",
    "assets/notes": b"0" * 110 * 2**20,
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_entry_that_unpacks_to_far_more_than_the_file_is_not_read(saved, tmp_path, name):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(saved[0]) as given, zipfile.ZipFile(path, "w") as new:
        for other in {*given.namelist()} - {name}:
            new.writestr(other, given.read(other))
        new.writestr(name, BOMBS[name], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        assert is_refused(path, saved[2])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def hostile(target):
    """Configurations of a layer that would write a file, if anything in them were run."""
    command = f"touch {target}"
    function = keras.layers.Lambda(eval(f"lambda x: __import__('os').system({command!r})"))

    def of(module, kind, config, name=None):
        registered = {} if name is None else {"registered_name": name}
        return {"module": module, "class_name": kind, "config": config, **registered}

    system = of("os", "function", "system", "system")
    return {
        "lambda layer": of("keras.layers", "Lambda", function.get_config()),
        "lambda": of(
            "builtins", "__lambda__", {"value": function.get_config()["function"]["config"]["code"]}
        ),
        "os.system": of("os", "system", command, "system"),
        "a function": of("os", "function", "system", "function"),
        "builtins.exec": of("builtins", "exec", {"object": f"import os; os.system({command!r})"}),
        "subprocess": of("subprocess", "Popen", {"args": ["touch", str(target)]}),
        "an activation": of("keras.layers", "Activation", {"name": "a", "activation": system}),
        "a download": of("keras.utils", "function", "get_file", "get_file"),
    }


@pytest.mark.parametrize("name", hostile(""))
def test_code_in_a_configuration_is_not_run(saved, tmp_path, name):
    target = tmp_path / "was_run"
    layer = hostile(target)[name]
    with zipfile.ZipFile(saved[0]) as archive:
        config = json.loads(archive.read(saving.CONFIG))
    config["config"]["layers"][-1] = {
        "registered_name": None,
        "build_config": {"input_shape": [None, 4]},
        **layer,
    }
    path = with_members(saved[0], tmp_path / "hostile.keras", config=json.dumps(config))
    code, error = inspected(path)
    assert (code, len(error)) == (2, 1) and "Received: " in error[0]
    assert not target.exists()


def test_a_pickle_is_not_read(saved, tmp_path):
    class Hostile:
        def __reduce__(self):
            return open, (str(tmp_path / "was_run"), "w")

    content = pickle.dumps(Hostile())
    for name in ("plain.keras", "members.keras"):
        path = tmp_path / name
        if name == "plain.keras":
            path.write_bytes(content)
        else:
            with_members(saved[0], path, model=content)
        code, error = inspected(path)
        assert (code, len(error)) == (2, 1) and "Received: " in error[0]
    np.savez(tmp_path / "x.npz", x=np.array([Hostile()], dtype=object), allow_pickle=True)
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert main(["measure", str(saved[0]), "--data", str(tmp_path / "x.npz")]) == 2
    assert "Received: " in err.getvalue() and err.getvalue().count("\n") == 1
    assert not (tmp_path / "was_run").exists()


def test_weights_do_not_come_from_another_file(saved, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["kernel"] = np.full((4, 3), 42, "float32")
    with zipfile.ZipFile(saved[0]) as archive:
        (tmp_path / "model.weights.h5").write_bytes(archive.read("model.weights.h5"))
    with h5py.File(tmp_path / "model.weights.h5", "a") as weights:
        kernel = weights["layers/dense/vars"]
        del kernel["0"]
        kernel["0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel")
    path = with_members(
        saved[0], tmp_path / "linked.keras", model=(tmp_path / "model.weights.h5").read_bytes()
    )
    code, error = inspected(path)
    assert (code, len(error)) == (2, 1) and "Received: " in error[0]
