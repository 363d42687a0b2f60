import json
import signal

import pytest

from keras_ic.cli import main
from keras_ic.tuning import trial
from tests.test_cli import error_of

TUNE = [
    "tune",
    "--data",
    "digits",
    "--model",
    "small",
    "--epochs",
    "1",
    "--train-size",
    "64",
    "--validation",
    "0.25",
    "--tuner",
    "random",
    "--workers",
    "0",
]


def test_a_search_from_the_command_line(tmp_path, quick, capsys):
    arguments = [
        "--trials",
        "2",
        "--order",
        "ic",
        "--rate",
        "0",
        "0.2",
        "--rate-depth",
        "uniform",
        "--rate-schedule",
        "constant",
    ]
    command = [*TUNE, *arguments, "--schedule", "cosine", "--out", str(tmp_path / "search")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert (
        shown.count("% of the validation images") == 2
        and (tmp_path / "search" / "table.md").read_text() in shown
    )
    lines = [
        json.loads(line) for line in (tmp_path / "search" / "trials.jsonl").read_text().splitlines()
    ]
    assert all(
        set(line["values"]) == {"rate", "learning_rate"} and 0 <= line["values"]["rate"] <= 0.2
        for line in lines
    )
    assert {"trial", "values", "score", "status"} <= set(lines[0])
    before = (tmp_path / "search" / "trials.jsonl").read_bytes()
    assert main(command) == 0  # done already
    assert (
        tmp_path / "search" / "trials.jsonl"
    ).read_bytes() == before and "the table beside them" in capsys.readouterr().out
    assert "This search of 2 trials has come to its end" in error_of(
        capsys, *command, "--trials", "3"
    )


def test_dry_run_searches_nothing(tmp_path, capsys):
    assert (
        main([*TUNE, "--rate", "0.1", "--prune", "--dry-run", "--out", str(tmp_path / "search")])
        == 0
    )
    said = json.loads(capsys.readouterr().out.partition(": ")[2])
    assert (said["space"]["rate"], said["prune"], said["recipe"]["model"]) == (
        [0.1, 0.1],
        True,
        "small",
    )
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0", "1"], "Received: rate=1.0"),
        (["--rate", "0.2", "0.1"], "the lower first. Received: rate=[0.2, 0.1]"),
        (["--trials", "0"], "`trials` must be an integer above 0. Received: trials=0"),
        (["--tuner", "baysian"], "did you mean 'bayesian'? Received: tuner='baysian'"),
        (["--model", "smal"], "did you mean 'small'? Received: model='smal'"),
        (["--order", "icc"], "did you mean 'ic'? Received: orders='icc'"),
        (["--validation", "0"], "Received: validation=0.0"),
        (["--trial", "two"], "invalid int value: 'two'"),
    ],
)
def test_bad_arguments(tmp_path, capsys, arguments, message):
    for dry in ([], ["--dry-run"]):
        assert message in error_of(capsys, *TUNE, *arguments, *dry, "--out", tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_stopped_by_a_signal(tmp_path, quick, capsys):
    quick.setattr(trial.training, "run", lambda *_, **others: signal.raise_signal(signal.SIGTERM))
    assert main([*TUNE, "--trials", "1", "--out", str(tmp_path / "search")]) == 75
    said = "keras-ic tune: stopped; the same command goes on with the search in"
    assert capsys.readouterr().err == f"{said} {tmp_path / 'search'}\n"
