"""JSON files that a run leaves, and one clear error for one that is damaged."""

import contextlib
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

ADVICE = "restore it from a copy, or delete it and run again"
# What the content of a damaged file makes a reader raise.
OF_CONTENT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def read_json(path: Any, keys: Iterable[str] = (), advice: str = ADVICE) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Args:
        path: Path of the file.
        keys: Iterable of strings, the keys that the object must have. Defaults to none.
        advice: String, what the user can do about a damaged file. Defaults to `"restore it from a
            copy, or delete it and run again"`.

    Returns:
        The object, as a dictionary.

    Raises:
        ValueError: In one line that names the file, if it cannot be read, is empty or damaged,
            holds anything else than an object, or lacks a key.

    Example:

    ```python
    import pathlib, tempfile
    from keras_ic.utils.json_files import read_json

    path = pathlib.Path(tempfile.mkdtemp(), "best.json")
    path.write_text('{"trial": 3}')
    assert read_json(path, ["trial"])["trial"] == 3
    ```
    """
    content = _content(path)
    with checking_content(path, advice=advice):
        return _object(content, keys)


def read_json_lines(
    path: Any, keys: Iterable[str] = (), advice: str = ADVICE
) -> list[dict[str, Any]]:
    """Reads a file that holds one JSON object a line.

    A last line without its end is left out: it was being written when the writer was stopped.

    Args:
        path: Path of the file.
        keys: As in `read_json`, of every line.
        advice: As in `read_json`.

    Returns:
        List of dictionaries, one a line; empty if the file holds no whole line.

    Raises:
        ValueError: As `read_json`; it names the line.

    Example:

    ```python
    import pathlib, tempfile
    from keras_ic.utils.json_files import read_json_lines

    path = pathlib.Path(tempfile.mkdtemp(), "record.jsonl")
    path.write_text('{"epoch": 1}\\n{"epoch": 2}\\n{"epo')
    assert [line["epoch"] for line in read_json_lines(path)] == [1, 2]
    ```
    """
    objects = []
    for number, line in enumerate(_content(path).split(b"\n")[:-1], 1):
        with checking_content(path, number, advice):
            objects.append(_object(line, keys))
    return objects


@contextlib.contextmanager
def checking_content(path: Any, line: int | None = None, advice: str = ADVICE) -> Iterator[None]:
    """Turns what a block raises about the content of a file into the error of `read_json`.

    Args:
        path: Path of the file.
        line: Integer, the line from 1 that the content is from. Defaults to `None`: the whole file.
        advice: As in `read_json`.

    Raises:
        ValueError: In one line, if the block raises an error that values of a wrong kind make.

    Example:

    ```python
    from keras_ic.utils.json_files import checking_content

    try:
        with checking_content("record.jsonl", line=2):
            int({"epoch": "x"}["epoch"])
    except ValueError as error:
        assert str(error).startswith("Line 2 of this file is damaged")
    ```
    """
    try:
        yield
    except OF_CONTENT as error:
        where = "This file" if line is None else f"Line {line} of this file"
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{where} is damaged ({type(error).__name__}: {reason}); {advice}. Received:"
            f" {str(path)!r}"
        ) from None


def _content(path: Any) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"This file cannot be read ({error.strerror}); check the path. Received: {str(path)!r}"
        ) from None


def _object(content: bytes, keys: Iterable[str]) -> dict[str, Any]:
    if not content.strip():
        raise ValueError("it is empty")
    value = json.loads(content.decode())
    if not isinstance(value, dict):
        raise ValueError(f"it holds no object, but a value of type {type(value).__name__}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return value
