import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import pytest

from keras_ic import distribution
from keras_ic.cli import main
from keras_ic.training import command, datasets, read
from tests.test_cli import error_of

TRAIN = ["train", "--data", "digits", "--model", "small", "--epochs", "1", "--train-size", "64"]


@pytest.mark.tensorflow_only
def test_train_a_grid_and_report_it(tmp_path, capsys):
    arguments = [
        *TRAIN,
        "--order",
        "usual",
        "ic",
        "--rate",
        "0.1",
        "--seed",
        "0",
        "1",
        "--batch",
        "32",
        "--out",
        str(tmp_path / "runs"),
    ]
    assert main(arguments) == 0
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    size = "1epochs-seed{}-batch=32-train_size=64"
    assert folders == sorted(
        f"digits-small-{order}-{size.format(seed)}"
        for order in ("conv-bn-relu", "relu-ic-conv-0.1")
        for seed in (0, 1)
    )
    before = [(tmp_path / "runs" / name / "record.jsonl").read_bytes() for name in folders]
    capsys.readouterr()
    assert main(arguments) == 0  # all done already
    assert [(tmp_path / "runs" / name / "record.jsonl").read_bytes() for name in folders] == before
    assert capsys.readouterr().out.count("test accuracy") == 4
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0
    shown = capsys.readouterr().out
    assert (
        tmp_path / "report" / "table.md"
    ).read_text() in shown and "| relu-ic-conv, rate 0.1 | 2 |" in shown


@pytest.mark.tensorflow_only
def test_one_run_has_the_folder_itself(tmp_path, monkeypatch):
    assert (
        main(
            [
                *TRAIN,
                "--recalibrate",
                "end",
                "--no-classifier-ic",
                "--rate-schedule",
                "grow",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )
    config = read(tmp_path / "run").config
    assert (config.recalibrate, config.classifier_ic, config.rate_schedule) == (
        "end",
        False,
        "grow",
    )
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, "--order", "usual"]) == 0
    assert (
        tmp_path / "runs" / "digits-small-conv-bn-relu-1epochs-seed0-train_size=64" / "model.keras"
    ).exists()


def test_dry_run_runs_nothing(tmp_path, capsys):
    assert (
        main(
            [
                *TRAIN,
                "--rate",
                "0",
                "0.1",
                "--no-augment",
                "--dry-run",
                "--out",
                str(tmp_path / "runs"),
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if "{" in line]
    assert [json.loads(line.partition(": ")[2])["rate"] for line in lines] == [0.0, 0.1]
    assert "2 an epoch, 2 in 1 epochs" not in shown and "1 an epoch, 1 in 1 epochs" in shown
    assert not (tmp_path / "runs").exists()


def test_rates_over_the_depth(tmp_path, capsys):
    arguments = [
        "--rate-depth",
        "stages",
        "--rates",
        "0,0.05,0.1",
        "0.1",
        "--validation",
        "0.1",
        "--dry-run",
        "--out",
        str(tmp_path),
    ]
    assert main([*TRAIN, *arguments]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "{" in line]
    runs = [json.loads(line.partition(": ")[2]) for line in lines]
    assert [(run["rates"], run["validation"]) for run in runs] == [
        ([0, 0.05, 0.1], 0.1),
        ([0.1], 0.1),
    ]


@pytest.mark.tensorflow_only
def test_a_run_that_fails_does_not_stop_the_others(tmp_path, capsys):
    arguments = [
        "--optimizer",
        "sgd",
        "--order",
        "usual",
        "--learning-rate",
        "1e38",
        "0.01",
        "--weight-decay",
        "10",
        "--out",
        str(tmp_path),
    ]
    assert main([*TRAIN, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith(
        "keras-ic train: 1 of 2 runs failed, the others are done: "
    )
    assert error.endswith("Received: learning_rate=1e+38\n")
    assert len(list(tmp_path.glob("*/model.keras"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet2O"], "did you mean 'resnet20'? Received: model='resnet2O'"),
        (["--order", "icc"], "did you mean 'ic'? Received: order='icc'"),
        (["--rate", "0.1", "1"], "Received: rate=1.0"),
        (["--epochs", "two"], "argument --epochs: invalid int value: 'two'"),
        (["--sed", "1"], "unrecognized arguments: --sed 1"),
        (["--model", "resnet21"], "Received: depth=21"),
        (["--label-smoothing", "1"], "Received: label_smoothing=1.0"),
        (["--rates", "0,x"], "argument --rates: invalid"),
    ],
)
def test_bad_arguments(tmp_path, capsys, arguments, message):
    assert message in error_of(capsys, *TRAIN, *arguments, "--out", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.tensorflow_only
def test_a_worker_that_does_not_come(tmp_path, capsys, monkeypatch):
    def strategy(kind, timeout):
        raise distribution.LostPeerError("A worker did not start. Received: 'a:1'")

    monkeypatch.setattr(distribution, "strategy", strategy)
    assert main([*TRAIN, "--out", str(tmp_path / "run")]) == 75
    error = capsys.readouterr().err
    assert error == "keras-ic train: A worker did not start. Received: 'a:1'\n"


def test_bad_folders(tmp_path, capsys):
    assert "Received: " in error_of(
        capsys, "report", tmp_path / "none", "--out", tmp_path / "report"
    )
    (tmp_path / "record.jsonl").write_text("{\n")
    assert "Line 1 of this file is damaged" in error_of(
        capsys, "report", tmp_path, "--out", tmp_path / "report"
    )


def test_a_missing_data_set(tmp_path, capsys, monkeypatch):
    def run(config, folder, strategy, data_dir, **options):
        raise datasets.MissingDataError(f"cifar10 is not in {data_dir}")

    monkeypatch.setattr(command, "run", run)
    arguments = ["train", "--model", "resnet8", "--data-dir", "there", "--out", tmp_path / "run"]
    assert main(list(map(str, arguments))) == 2
    assert capsys.readouterr().err == "keras-ic train: cifar10 is not in there\n"


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(tmp_path, number):
    arguments = [
        sys.executable,
        "-m",
        "keras_ic",
        *TRAIN,
        "--epochs",
        "500",
        "--out",
        str(tmp_path),
    ]
    log = pathlib.Path(tmp_path, "log")
    with open(log, "w") as file:
        process = subprocess.Popen(
            arguments, stdout=file, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        deadline = time.monotonic() + 300
        while not (tmp_path / "checkpoint.keras").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        _, error = process.communicate()
    assert process.returncode == 75, error
    assert (
        error.splitlines()[-1]
        == f"keras-ic train: stopped; the same command goes on with {tmp_path}"
    )
    assert 1 <= len(read(tmp_path).epochs) < 500 and (tmp_path / "checkpoint.keras").exists()


@pytest.mark.tensorflow_only
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_lost_stops_the_run_too(tmp_path, capsys):
    """As when it meets a finalizer, whose exceptions Python drops."""

    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    real = command.run

    def run(config, folder, strategy, data_dir, **options):
        sends = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: Finalized() if epoch == 1 else None
        )
        return real(config, folder, strategy, data_dir, callbacks=[sends], verbose=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "run", run)
        assert main([*TRAIN, "--epochs", "9", "--out", str(tmp_path)]) == 75
    assert len(read(tmp_path).epochs) == 2
    assert "keras-ic train: stopped; the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
