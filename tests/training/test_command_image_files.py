"""`keras-ic train` on image files, here and by two real workers."""

import json
import signal
import time

import pytest

from keras_ic.cli import main
from keras_ic.training import find, read
from tests.distribution.conftest import start  # noqa: F401

pytestmark = pytest.mark.tensorflow_only
TINY = ["--preset", "small", "--model", "Tiny", "--image-size", "32", "--batch", "8"]
TINY += ["--learning-rate", "3.2"]


def arguments(data, out, *more):
    return ["train", "--data", str(data), *TINY, "--out", str(out), *map(str, more)]


def test_a_run_and_what_it_would_take(shards, tiny, tmp_path, capsys):
    command = arguments(shards, tmp_path / "run", "--epochs", 1, "--order", "usual")
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "62 to train with, 19 to judge on, 4 classes" in shown
    assert "Tiny, conv-bn-relu" in shown and not (tmp_path / "run").exists()
    assert main(command) == 0
    assert "% after epoch 1; " in capsys.readouterr().out
    head = read(tmp_path / "run").head
    assert head["configuration"]["order"] == "conv-bn-relu" and "replicas" in head
    assert head["configuration"]["warmup_epochs"] == 0


def test_the_step_alone(tiny, capsys):
    assert main(arguments("none", "none", "--synthetic")) == 0
    times = json.loads(capsys.readouterr().out)
    assert times["images_per_second"] > 0 and times["order"] == "relu-ic-conv"


def test_a_grid(shards, tiny, tmp_path):
    assert (
        main(arguments(shards, tmp_path, "--epochs", 1, "--seed", 0, 1, "--recalibrate", "off"))
        == 0
    )
    assert [record.config.seed for record in find(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train-size", "9"], "sets that fit into memory"),
        (["--no-augment"], "sets that fit into memory"),
        (["--preset", "big"], "argument --preset: invalid choice: 'big'"),
        (["--batch", "7", "--accumulate", "2"], "Received: batch=7"),
        (["--strategy", "multiworker"], "Received: neither of them"),
        (["--model", "Tinyy"], "did you mean 'Tiny'? Received: model='Tinyy'"),
    ],
)
def test_bad_arguments(shards, tiny, tmp_path, capsys, more, message):
    assert main(arguments(shards, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001").touch()
    for name, message in (
        ("imagenet2012", "put ILSVRC2012_img_train.tar"),
        ("./none", "Received: data='./none'"),
        ("cifar", "did you mean 'cifar10'? Received: data='cifar'"),
        (str(tmp_path / "data"), "hold no record"),
    ):
        assert main(arguments(name, tmp_path / "run")) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_two_workers_stopped_by_a_signal_and_resumed(shards, start, tmp_path):  # noqa: F811
    """They share the shards by files; then the run goes on to the end, and both workers have come
    to the same record.
    """
    more = ["--epochs", 12, "--checkpoint-steps", 2, "--peer-timeout", 10]
    command = arguments(shards, tmp_path / "run", *more)
    program = ["-W", "ignore", "-m", "tests.training.tiny", *command]
    job = start(program)
    record = tmp_path / "run" / "record.jsonl"
    end = time.monotonic() + 200
    while not record.exists() or len(record.read_text().splitlines()) < 3:
        is_running = all(process.poll() is None for process in job.processes)
        assert is_running and time.monotonic() < end, job.text(0) + job.text(1)
        time.sleep(0.2)
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.wait() == [75, 75], job.text(0) + job.text(1)
    last = job.text(0).splitlines()[-1]
    assert last == f"keras-ic train: stopped; the same command goes on with {tmp_path / 'run'}"
    before = record.read_text().splitlines()
    job = start(program)
    assert job.wait() == [0, 0], job.text(0) + job.text(1)
    after = record.read_text().splitlines()
    assert len(after) == 13 and after[: len(before) - 1] == before[:-1]
    assert json.loads(after[0])["workers"] == 2 and json.loads(after[-1])["val_accuracy"] > 0.6
    assert "% after epoch 12" in job.text(0)
    assert "Epoch" not in job.text(1) and "% after" not in job.text(1)
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == ["model.keras", "record.jsonl"]
    job = start([*program, "--seed", "1"])  # another run: both say so, and end
    assert job.wait() == [2, 2], job.text(0) + job.text(1)
    assert "another run (seed 0 there, 1 here)" in job.text(0).splitlines()[-1]
    assert "see its message" in job.text(1).splitlines()[-1]


@pytest.mark.slow(reason="one process re-estimates them in faster tests")
@pytest.mark.parametrize("data", ["shards", "digits"])
def test_two_workers_re_estimate_statistics_at_the_end(data, request, start, tmp_path):  # noqa: F811
    """Both take part in the evaluation after it; the chief alone writes."""
    more = ["--epochs", 1, "--recalibrate", "end", "--peer-timeout", 20]
    if data == "shards":
        command = arguments(request.getfixturevalue(data), tmp_path / "run", *more)
    else:
        small = ["--model", "small", "--train-size", 70, "--batch", 32]
        command = ["train", "--data", data, *small, "--out", tmp_path / "run", *more]
    job = start(["-W", "ignore", "-m", "tests.training.tiny", *command])
    assert job.wait() == [0, 0], job.text(0) + job.text(1)
    record = read(tmp_path / "run")
    assert record.is_finished and record.head["workers"] == 2
