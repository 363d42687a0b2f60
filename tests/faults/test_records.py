"""Damaged records of runs: one clear error with file and line, or the epochs that are whole."""

import json
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keras_ic import training
from keras_ic.training import record as records

FUZZ = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def folder(tmp_path):
    """A run of three epochs."""
    configuration = training.TrainingConfig(data="digits", model="small", epochs=3).to_dict()
    head = {
        "schema": 1,
        "configuration": configuration,
        "seed": configuration.pop("seed"),
        "versions": {"keras": "3"},
        "parameters": 9,
        "steps": 2,
        "replicas": 1,
        "workers": 1,
    }
    records.begin(tmp_path / "run", head, None, 0)
    for epoch in (1, 2, 3):
        values = {
            "loss": 0.5 / epoch,
            "accuracy": 0.7,
            "val_loss": 0.6,
            "val_accuracy": 0.6,
            "seconds": 1.5,
            "step_seconds": 0.25,
        }
        records.append(tmp_path / "run", {"epoch": epoch, **values})
    return tmp_path / "run"


def read_or_refused(path):
    """The record, or None if it is refused in one clear line."""
    try:
        return training.read(path)
    except ValueError as error:
        assert "\n" not in str(error) and str(error).endswith(f"Received: {str(path)!r}")
        return None


def test_cut_at_every_byte(folder):
    path = folder / "record.jsonl"
    content, whole = path.read_bytes(), training.read(folder)
    ends = [place for place, byte in enumerate(content, 1) if byte == ord("\n")]
    for length in range(len(content)):
        path.write_bytes(content[:length])
        found = read_or_refused(path)
        lines = sum(end <= length for end in ends)
        assert (found is None) == (lines == 0)
        if found is not None:
            assert found.epochs == whole.epochs[: lines - 1]
            assert not found.is_finished


@settings(FUZZ, max_examples=400)
@given(place=st.floats(0, 1, exclude_max=True), flips=st.integers(1, 255))
def test_flipped_bytes(folder, place, flips):
    """A digit may become another one: a record has no sums. It then still is a record."""
    path = folder / "record.jsonl"
    content = path.read_bytes()
    changed = bytearray(content)
    changed[int(place * len(content))] ^= flips
    path.write_bytes(changed)
    found = read_or_refused(path)
    path.write_bytes(content)
    if found is not None:
        assert [epoch["epoch"] for epoch in found.epochs] == list(range(1, len(found.epochs) + 1))
        assert all(
            isinstance(value, (int, float)) for epoch in found.epochs for value in epoch.values()
        )


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda part: st.one_of(
        st.lists(part, max_size=3),
        st.dictionaries(
            st.sampled_from(["configuration", "seed", "epoch", "loss", "x"]), part, max_size=3
        ),
    ),
    max_leaves=8,
)


@settings(FUZZ, max_examples=300)
@given(line=st.integers(0, 3), key=st.integers(0, 6), value=JSON)
@example(line=0, key=3, value=math.inf)  # as a number of parameters
@example(line=0, key=1, value=10**400)
@example(line=1, key=1, value=10**400)
@example(line=1, key=0, value=[])
def test_other_values(folder, line, key, value):
    path = folder / "record.jsonl"
    content = path.read_text()
    lines = [json.loads(each) for each in content.splitlines()]
    lines[line][list(lines[line])[key % len(lines[line])]] = value
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    read_or_refused(path)
    path.write_text(content)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"a":' * 100_000, "\x00", "1" * 10_000, "nan", '"\\ud800"', "{}"]
)
def test_lines_that_are_no_objects(folder, line):
    path = folder / "record.jsonl"
    content = path.read_text().splitlines()
    for number in range(len(content)):
        path.write_text("\n".join([*content[:number], line, *content[number + 1 :]]) + "\n")
        assert read_or_refused(path) is None


def test_a_finished_run_is_not_taken_up_with_a_damaged_record(folder):
    path = folder / "record.jsonl"
    path.write_text(path.read_text().replace('"loss"', '"lass"', 1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"Line 2 of this file is damaged .*Received: "):
        training.run(
            training.TrainingConfig(data="digits", model="small", epochs=3), folder, verbose=0
        )
    assert path.read_bytes() == before
