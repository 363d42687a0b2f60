"""Files of JSON: what they hold, or one line that names the file."""

import math

import pytest

from keras_ic.utils.json_files import checking_content, read_json, read_json_lines

DAMAGED = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "a list": b"[1]",
    "a number": b"3",
    "cut": b'{"a": 1',
    "two values": b"{} {}",
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "zero bytes": b"\x00" * 100,
    "brackets": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "a huge integer": b'{"a": ' + b"1" * 10_000 + b"}",
    "without its key": b'{"b": 1}',
    "no object": b"{}",
}


def refused(read, path, *args, **kwargs):
    """The message of the error, which is one line that names the file."""
    with pytest.raises(ValueError) as caught:
        read(path, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(f"Received: {str(path)!r}")
    assert len(message) < 500 + len(str(path))
    return message


def test_what_a_file_holds(tmp_path):
    path = tmp_path / "values.json"
    path.write_text('{"a": "±", "b": [1, NaN]}\n', encoding="utf-8")
    found = read_json(str(path), ["a", "b"])
    assert found["a"] == "±" and math.isnan(found["b"][1])


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path, name):
    path = tmp_path / "best.json"
    path.write_bytes(DAMAGED[name])
    message = refused(read_json, path, ["a"])
    assert message.startswith("This file is damaged (")
    assert "restore it from a copy, or delete it and run again" in message


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_lines(tmp_path, name):
    path = tmp_path / "record.jsonl"
    path.write_bytes(b'{"a": 1}\n' + DAMAGED[name] + b"\n")
    assert refused(read_json_lines, path, ["a"]).startswith("Line 2 of this file is damaged (")


def test_a_line_that_was_being_written_is_left_out(tmp_path):
    path = tmp_path / "record.jsonl"
    whole = b'{"a": 1}\n{"a": 2}\n'
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert read_json_lines(path) == [{"a": 1}, {"a": 2}][: whole[:length].count(b"\n")]


@pytest.mark.parametrize("read", [read_json, read_json_lines])
def test_files_that_are_not_there(tmp_path, read):
    for path in (tmp_path / "none.json", tmp_path):
        assert refused(read, path).startswith("This file cannot be read (")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda value: value["b"],
        lambda value: value["a"]["c"],
        lambda value: value["a"].items,
        lambda value: int(value["a"]),
        lambda value: float(10**400),
        lambda value: value["a"][5],
    ],
)
def test_values_of_a_wrong_kind(wrong):
    def read(path):
        with checking_content(path, line=3, advice="start the search again"):
            wrong({"a": "x"})

    message = refused(read, "record.jsonl")
    assert message.startswith("Line 3 of this file is damaged (")
    assert "); start the search again. Received: " in message


def test_errors_that_are_not_about_the_content_pass():
    with pytest.raises(MemoryError), checking_content("record.jsonl"):
        raise MemoryError
