"""Model files that are never half written, and one clear error for one that is."""

import contextlib
import json
import os
import pathlib
import textwrap
import zipfile
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.utils.keras_internals import sublayers
from keras_ic.utils.validation import checked_model, checked_path

OLDER_FORMAT = (".h5", ".hdf5")  # of Keras, which warns when it writes one
CONFIG = "config.json"
RANDOM_STATES = "keras_ic_random_states.json"
WEIGHTS = {"model.weights.h5", "model.weights.npz"}
# Keras does not pack what it writes, and weights cannot be packed much. An entry that unpacks to
# more than so many times its bytes is refused before it is read, and so is a larger text.
MOST_UNPACKED, SMALL = 100, 2**20
MOST_BYTES = {CONFIG: 2**24, "metadata.json": SMALL, RANDOM_STATES: SMALL}


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives the path of a new file beside `path`, which takes its place in one step when the block
    ends, and is deleted if the block fails.

    Whoever reads `path`, at any time and after any crash, finds the old file or the new one whole.
    One writer at a time may write a path.

    Args:
        path: Path of the file to replace, or to make; its folder must exist.

    Yields:
        A `pathlib.Path` in the same folder with the same ending; where `path` is a symbolic link,
        in the folder it leads to.

    Example:

    ```python
    import pathlib, tempfile
    from keras_ic.saving import replacing

    path = pathlib.Path(tempfile.mkdtemp(), "notes.txt")
    with replacing(path) as new:
        new.write_text("all or nothing")
    assert path.read_text() == "all or nothing"
    ```
    """
    path = pathlib.Path(os.path.realpath(path))  # a link stays, and leads to the new file
    new = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield new
        _to_disk(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    if os.name == "posix":
        _to_disk(path.parent)  # the name, too, survives a power cut


def _to_disk(path):
    # Windows flushes only what is open for writing, POSIX opens folders only for reading.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Saves a model, its optimizer and its random states as a `.keras` file, which `path` names
    only once it is whole.

    Keras does not save the places in the random streams of stock layers, as of Dropout; here they
    are an entry of their own in the file, which `load_model` and `restore` read and Keras passes
    over. (On torch, stock layers without a `seed` draw from torch's own generator, whose place is
    not a model's; give them one.)

    Args:
        model: A built `keras.Model`.
        path: Path ending in `.keras`; its folder must exist.

    Raises:
        ValueError: If `model` is no Keras model, or `path` does not end in `.keras`.
        OSError: If it cannot be written.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    from keras_ic.saving import load_model, save_model

    path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    save_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), path)
    assert load_model(path).output_shape == (None, 2)
    ```
    """
    checked_model(model)
    path = checked_name(path)
    with replacing(path) as new:
        model.save(new)
        with zipfile.ZipFile(new, "a") as archive:
            archive.writestr(
                RANDOM_STATES,
                json.dumps(
                    [keras.ops.convert_to_numpy(state).tolist() for state in _random_states(model)]
                ),
            )


def load_model(path: str | os.PathLike) -> Any:
    """Loads a `.keras` file, compiled as it was saved, with its optimizer and its random states.

    Every byte is checked against the sums in the file before Keras reads it. A file of Keras's
    older format, `.h5`, has no sums and no random states; it is read as far as Keras can.

    Args:
        path: Path ending in `.keras`, `.h5` or `.hdf5`.

    Returns:
        The `keras.Model`.

    Raises:
        ValueError: If there is no such file, or it is damaged (cut off, overwritten), or no Keras
            file; if Keras cannot load it, as for a class that is not registered, and if it holds
            code, which is never run.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    from keras_ic.saving import load_model

    path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    assert load_model(path).output_shape == (None, 2)
    ```
    """
    if pathlib.Path(checked_path("path", path)).suffix in OLDER_FORMAT:
        return _loaded(_checked_to_exist(pathlib.Path(path)))
    checked = _checked_file(path)
    model = _loaded(checked)
    for variable, state in _saved_random_states(model, checked):
        variable.assign(state)
    return model


def _loaded(path: pathlib.Path) -> Any:
    try:
        return keras.models.load_model(path, safe_mode=True)
    # What a configuration or weights of the wrong form make Keras raise is nearly anything.
    except Exception as error:
        # Before it, Keras prints the whole configuration.
        inner = str(error).rpartition("Exception encountered: ")[2]
        reason = textwrap.shorten(f"{type(error).__name__}: {inner or error}", 300)
        advice = "or take another copy"
        if "ambda" in str(error):
            advice = (
                "or, if you trust the file, allow its lambda by"
                " `keras.config.enable_unsafe_deserialization()` in that module"
            )
        elif path.suffix in OLDER_FORMAT:
            advice = (
                "or convert it where it loads, by `model = keras.models.load_model(path)` and"
                ' `model.save("model.keras")`'
            )
        raise ValueError(
            f"Keras cannot load this model file ({reason}); register the classes that are not"
            f" Keras's (on the command line, import their module by --import), {advice}."
            f" Received: {str(path)!r}"
        ) from error


def restore(model: keras.Model, path: str | os.PathLike) -> None:
    """Gives a model the weights, the optimizer's state and the random states that `save_model`
    wrote of one built and compiled like it.

    Other than `load_model`, it takes nothing of the configuration from the file: what Keras does
    not write there, such as variables that are excluded from weight decay, stays as it is.

    Args:
        model: A built `keras.Model`; where its optimizer is to be restored, compiled, and the
            optimizer built.
        path: Path ending in `.keras`.

    Raises:
        ValueError: As `load_model`; and if the file holds other layers or other shapes of weights.
            The model is then as it was.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    from keras_ic.saving import restore, save_model

    path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.1)])
    save_model(model, path)
    model.layers[0].kernel.assign(keras.ops.zeros((3, 2)))
    restore(model, path)
    assert keras.ops.max(keras.ops.abs(model.layers[0].kernel)) > 0
    ```
    """
    checked_model(model)
    path = _checked_file(path)
    _check_layers(model, path)
    states = _saved_random_states(model, path)
    before = [(variable, keras.ops.convert_to_numpy(variable)) for variable in _state(model)]
    try:
        model.load_weights(path)
    # Keras has by then loaded the layers before the one that does not fit.
    except Exception as error:
        for variable, value in before:
            variable.assign(value)
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        raise ValueError(
            f"The weights in this file do not fit the model ({reason}); take its own. Received:"
            f" {str(path)!r}"
        ) from error
    for variable, state in states:
        variable.assign(state)


def _state(model):
    return [
        *model.variables,
        *(model.optimizer.variables if getattr(model, "optimizer", None) is not None else ()),
    ]


def _check_layers(model, path):
    """Refuses a file of other layers, of which Keras would load what it finds. A subclassed model
    has no list of layers to compare.
    """
    try:
        own = model.get_config()["layers"]
        with zipfile.ZipFile(path) as archive:
            saved = json.loads(archive.read(CONFIG))["config"]["layers"]
        kinds = [[layer["class_name"] for layer in layers] for layers in (own, saved)]
    except (KeyError, TypeError, NotImplementedError):
        return
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"The file holds a model of other layers; take its own. Received: {str(path)!r}"
        )


def _random_states(model):
    """The places in the random streams of stock layers, in the order of the model's variables.

    An IC layer keeps its own with its weights; and a layer whose rate has come to 0, a stock
    Dropout too, has none once it is loaded.
    """
    without = [
        layer
        for layer in sublayers(model)
        if isinstance(layer, IndependentComponent) or getattr(layer, "rate", None) == 0
    ]
    own = {id(variable) for layer in without for variable in layer.variables}
    own.update(id(weight) for weight in model.weights)
    return [
        variable
        for variable in model.variables
        if id(variable) not in own and variable.name == "seed_generator_state"
    ]


def _saved_random_states(model, path):
    """Pairs of a random state of the model and its value in the file; none if it has none."""
    variables = _random_states(model)
    try:
        with zipfile.ZipFile(path) as archive:
            if RANDOM_STATES not in archive.namelist():
                return []
            states = [np.asarray(state) for state in json.loads(archive.read(RANDOM_STATES))]
        if any(state.dtype.kind not in "iu" for state in states):
            raise ValueError("they are no integers")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"The random states in this file are damaged ({error}); take another copy. Received:"
            f" {str(path)!r}"
        ) from None
    if len(states) != len(variables):
        raise ValueError(
            f"The file is of a model with {len(states)} random streams, not {len(variables)}; take"
            f" its own. Received: {str(path)!r}"
        )
    for variable, state in zip(variables, states, strict=True):
        if state.shape != tuple(variable.shape):
            raise ValueError(
                "The random states in this file are of another form; take another copy. Received:"
                f" {str(path)!r}"
            )
    # By NumPy: a negative seed, which TensorFlow's streams may have, is a cast that other backends
    # refuse.
    return [
        (variable, state.astype(variable.dtype))
        for variable, state in zip(variables, states, strict=True)
    ]


def _checked_file(path):
    path = _checked_to_exist(checked_name(path))
    with open(path, "rb") as file:
        if not _is_whole(file):
            raise ValueError(
                "This is not a complete Keras model file: it was cut off or damaged, or is of"
                f" another kind; take another copy. Received: {str(path)!r}"
            )
    return path


def _checked_to_exist(path: pathlib.Path) -> pathlib.Path:
    if not path.is_file():
        raise ValueError(f"There is no such model file; check the path. Received: {str(path)!r}")
    return path


def checked_name(path: Any) -> pathlib.Path:
    """`path`, if it is one of a model file."""
    path = pathlib.Path(checked_path("path", path))
    if path.suffix != ".keras":
        raise ValueError(f"The name of a model file must end in `.keras`. Received: {str(path)!r}")
    return path


def _is_whole(file):
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            return (
                _has_sound_sizes(archive)
                and archive.testzip() is None
                and not WEIGHTS.isdisjoint(names)
                and "class_name" in json.loads(archive.read(CONFIG))
            )
    # Damaged bytes make zipfile raise nearly anything: BadZipFile, OSError, NotImplementedError,
    # RuntimeError, EOFError, zlib.error, struct.error.
    except Exception:
        return False


def _has_sound_sizes(archive):
    return all(
        entry.file_size
        <= MOST_BYTES.get(entry.filename, MOST_UNPACKED * max(entry.compress_size, SMALL))
        for entry in archive.infolist()
    )
