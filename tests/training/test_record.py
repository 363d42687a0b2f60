import json
import math

import pytest

from keras_ic.training import TrainingConfig, find, read
from keras_ic.training.record import append, begin


def head(**values):
    configuration = TrainingConfig(**{"epochs": 3, "recalibrate": "off", **values}).to_dict()
    seed = configuration.pop("seed")
    return {
        "schema": 1,
        "configuration": configuration,
        "seed": seed,
        "rewritten": False,
        "versions": {"keras": "3"},
        "parameters": 9,
        "steps": 2,
        "images": {"train": 128, "validation": 10},
        "replicas": 1,
        "workers": 1,
        "devices": {"cpu": 1},
        "hosts": ["a"],
    }


def epoch(number, accuracy=0.5, **values):
    metrics = {"loss": 1.0, "accuracy": 0.4, "val_loss": 2.0, "val_accuracy": accuracy}
    return {"epoch": number, **metrics, "seconds": 60.0, "step_seconds": 0.25, **values}


def write(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.jsonl").write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )
    return folder


def test_read(tmp_path):
    record = read(write(tmp_path / "a", head(seed=4), epoch(1), epoch(2, 0.6)))
    assert record.config == TrainingConfig(epochs=3, seed=4, recalibrate="off")
    assert record.head == head(seed=4)
    assert record.values("val_accuracy") == [0.5, 0.6] and not record.is_finished
    assert read(tmp_path / "a" / "record.jsonl") == record
    assert read(write(tmp_path / "b", head(), epoch(1), epoch(2), epoch(3))).is_finished


def test_recalibrated_is_the_last_line(tmp_path):
    lines = [head(recalibrate="end"), epoch(1), epoch(2), epoch(3)]
    assert not read(write(tmp_path, *lines)).is_finished
    record = read(
        write(tmp_path, *lines, {"recalibrated": {"val_loss": 1.5, "val_accuracy": 0.75}})
    )
    assert record.is_finished and record.recalibrated == {"val_loss": 1.5, "val_accuracy": 0.75}


def test_begin_and_append(tmp_path):
    folder = tmp_path / "new" / "run"
    begin(folder, head(), None, 0)
    append(folder, epoch(1))
    append(folder, epoch(2, val_loss=math.nan))
    assert read(folder).values("epoch") == [1, 2] and math.isnan(read(folder).epochs[1]["val_loss"])
    elsewhere = {**head(), "versions": {"keras": "4"}, "devices": {"cpu": 2}, "replicas": 2}
    begin(folder, elsewhere, read(folder), 1)
    again = read(folder)
    assert again.values("epoch") == [1] and again.head["versions"] == {"keras": "3"}
    resumed = {"epoch": 2, "versions": {"keras": "4"}, "replicas": 2, "workers": 1}
    resumed |= {"devices": {"cpu": 2}, "hosts": ["a"]}
    assert again.head["resumed"] == [resumed] and again.head["devices"] == {"cpu": 1}
    begin(folder, elsewhere, again, 1)
    assert read(folder).head["resumed"] == [resumed]


def test_another_schema_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"its schema is 2, not 1\); .* Received: "):
        read(write(tmp_path, {**head(), "schema": 2}))


def test_a_loss_that_was_not_finite(tmp_path):
    assert math.isnan(read(write(tmp_path, head(), epoch(1, val_loss=None))).values("val_loss")[0])


def test_a_line_that_was_being_written_does_not_count(tmp_path):
    path = write(tmp_path, head(), epoch(1)) / "record.jsonl"
    whole = path.read_text()
    for rest in ("{", json.dumps(epoch(2))[:20], json.dumps(epoch(2))):
        path.write_text(whole + rest)
        assert len(read(tmp_path).epochs) == 1


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        ([], 1),
        (["{"], 1),
        ([json.dumps({**head(), "configuration": {"order": "iic"}})], 1),
        ([json.dumps({"seed": 1})], 1),
        (["[]"], 1),
        ([head(), "x"], 2),
        ([head(), epoch(2)], 2),
        ([head(), epoch(1), epoch(3)], 3),
        ([head(), epoch(1), json.dumps(epoch(2))[:-9]], 3),
        ([head(), {"epoch": 1, "loss": 2.0}], 2),
        ([head(), epoch(1, loss="low")], 2),
        ([head(), {"recalibrated": {}}], 2),
    ],
)
def test_damaged_lines_are_named(tmp_path, lines, number):
    folder = write(tmp_path / "run", *lines)
    with pytest.raises(
        ValueError, match=rf"^Line {number} of this file is damaged .*Received: '.*record.jsonl'$"
    ):
        read(folder)


def test_find(tmp_path):
    write(tmp_path / "runs" / "b", head(seed=1))
    write(tmp_path / "runs" / "deep" / "a", head(seed=2))
    write(tmp_path / "other", head(seed=3))
    assert [record.config.seed for record in find(tmp_path / "runs")] == [1, 2]
    assert [
        record.config.seed
        for record in find([tmp_path / "other", str(tmp_path / "runs"), tmp_path])
    ] == [3, 1, 2]
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "empty", "There is no record.jsonl in these folders"),
        (tmp_path / "no", "Give folders that hold runs"),
    ):
        with pytest.raises(ValueError, match=rf"{message}.*Received: '?{path}'?$"):
            find(path)
    with pytest.raises(ValueError, match=r"There is no record of a run here; .*Received: "):
        read(tmp_path / "empty")
