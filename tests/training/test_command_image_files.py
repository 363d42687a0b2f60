"""`keras-ic train` on ImageNet data, here and by two real workers."""

import json
import signal
import time

import pytest

from keras_ic.cli import main
from tests.distribution.conftest import start  # noqa: F401
from tests.test_cli import error_of

pytestmark = pytest.mark.tensorflow_only
TINY = [
    "--recipe",
    "small",
    "--model",
    "Tiny",
    "--image-size",
    "32",
    "--batch",
    "8",
    "--learning-rate",
    "3.2",
]


def arguments(data, out, *more):
    return ["train", "--data", str(data), *TINY, "--out", str(out), *map(str, more)]


def test_train_and_plan_here(shards, tiny, tmp_path, capsys):
    command = arguments(
        shards, tmp_path / "run", "--epochs", 2, "--strategy", "one", "--order", "usual"
    )
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert (
        "62 to train with, 19 to test with, 4 classes" in shown
        and "Tiny, usual" in shown
        and not (tmp_path / "run").exists()
    )
    assert main(command) == 0
    assert "% after epoch 2; " in capsys.readouterr().out
    head = json.loads((tmp_path / "run" / "record.jsonl").read_text().splitlines()[0])
    assert head["configuration"]["order"] == "usual" and head["configuration"]["warmup_epochs"] == 1
    assert main([*arguments(shards, tmp_path / "run"), "--strategy", "one", "--synthetic"]) == 0
    assert json.loads(capsys.readouterr().out)["images_per_second"] > 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed", "0", "1"], "give one value here. Received: --seed 0 1"),
        (
            ["--train-size", "9"],
            "This argument is for digits and CIFAR alone. Received: --train-size with --data ",
        ),
        (
            ["--recalibrate"],
            "This argument is for digits and CIFAR alone. Received: --recalibrate with --data ",
        ),
        (["--recipe", "big"], "argument --recipe: invalid choice: 'big'"),
        (["--batch", "7", "--accumulate", "2"], "Received: batch=7"),
        (["--strategy", "multiworker"], "Received: neither of them"),
        (["--model", "Tinyy"], "Received: model='Tinyy'"),
    ],
)
def test_bad_arguments(shards, tiny, tmp_path, capsys, more, message):
    assert message in error_of(capsys, *arguments(shards, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert "put ILSVRC2012_img_train.tar" in error_of(
        capsys, "train", "--data", "imagenet2012", "--strategy", "one"
    )
    for name in ("./none", str(tmp_path / "none")):
        assert f"Received: data='{name}'" in error_of(
            capsys, "train", "--data", name, "--strategy", "one"
        )
    (tmp_path / "train-00000-of-00001").touch()
    assert "hold no record" in error_of(
        capsys, "train", "--data", str(tmp_path), "--strategy", "one"
    )


def test_two_workers_stopped_by_a_signal_and_resumed(shards, start, tmp_path):  # noqa: F811
    """They share the shards by files; then the run goes on to the end, and both workers have come
    to the same record.
    """
    program = [
        "-W",
        "ignore",
        "-m",
        "tests.imagenet.tiny",
        *arguments(shards, tmp_path / "run", "--backup-steps", 2, "--peer-timeout", 10),
    ]
    job = start([*program, "--epochs", "12"])
    record = tmp_path / "run" / "record.jsonl"
    end = time.monotonic() + 200
    while not record.exists() or len(record.read_text().splitlines()) < 3:
        assert (
            all(process.poll() is None for process in job.processes) and time.monotonic() < end
        ), job.text(0) + job.text(1)
        time.sleep(0.2)
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.wait() == [75, 75], job.text(0) + job.text(1)
    assert (
        job.text(0).splitlines()[-1]
        == "keras-ic train: stopped; the same command goes on at this step"
    )
    before = record.read_text().splitlines()
    job = start([*program, "--epochs", "12"])
    assert job.wait() == [0, 0], job.text(0) + job.text(1)
    after = record.read_text().splitlines()
    assert len(after) == 13 and after[: len(before) - 1] == before[:-1]
    assert json.loads(after[0])["workers"] == 2 and json.loads(after[-1])["val_accuracy"] > 0.6
    assert "top-1" in job.text(0) and "Epoch" not in job.text(1) and "top-1" not in job.text(1)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "model.keras",
        "record.jsonl",
    ]
    job = start([*program, "--epochs", "12", "--seed", "1"])  # another run: both say so, and end
    assert job.wait() == [2, 2], job.text(0) + job.text(1)
    assert (
        "another run (seed 0 there, 1 here)" in job.text(0).splitlines()[-1]
        and "see its message" in job.text(1).splitlines()[-1]
    )
