import importlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_ic
from keras_ic.cli import main
from tests.surgery import models


@pytest.fixture
def path(tmp_path):
    models.randomize(models.small_convolutional()).save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def error_of(capsys, *arguments):
    """The one line on stderr of a command that exits with 2."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_plan_prints_the_table_and_writes_json(path, tmp_path, capsys):
    assert (
        main(["plan", str(path), "--weights", "preserve", "-o", str(tmp_path / "plan.json")]) == 0
    )
    plan = keras_ic.plan(keras.models.load_model(path), weights="preserve")
    assert capsys.readouterr().out == f"{plan}\n"
    assert json.loads((tmp_path / "plan.json").read_text()) == plan.to_dict()


def test_rewrite_writes_the_model(path, capsys):
    before = path.read_bytes()
    assert (
        main(
            [
                "rewrite",
                str(path),
                "--weights",
                "preserve",
                "--rate",
                "0.1",
                "--no-skip-first",
                "--no-share",
            ]
        )
        == 0
    )
    target = path.with_name("model_ic.keras")
    assert capsys.readouterr().out == f"{target}\n" and path.read_bytes() == before
    new = keras.models.load_model(target)
    models.assert_same_function(keras.models.load_model(path), new)
    assert [ic.rate for ic in models.ics(new)] == [0.1] * 3 and new.layers[0].name == "conv1_ic"


def test_rewrite_to_a_chosen_file_with_other_policies(path, tmp_path):
    assert (
        main(
            [
                "rewrite",
                str(path),
                "--normalization",
                "keep",
                "--bias",
                "leave",
                "-o",
                str(tmp_path / "other.keras"),
            ]
        )
        == 0
    )
    assert len(models.batch_normalizations(keras.models.load_model(tmp_path / "other.keras"))) == 2


def test_inspect_lists_layers(path, tmp_path, capsys):
    assert main(["rewrite", str(path)]) == 0
    capsys.readouterr()
    assert (
        main(["inspect", str(path.with_name("model_ic.keras")), "-o", str(tmp_path / "rows.json")])
        == 0
    )
    rows = {row["layer"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert (
        rows["conv2"]["reads"] == "conv2_ic" and rows["conv1"]["reads"] == "an input of its model"
    )
    assert rows["conv2_ic"]["state"] == "rate 0.05, statistics as initialized"
    shown = capsys.readouterr().out
    assert all(name in shown for name in rows)


def test_errors_that_the_user_can_mend(path, tmp_path, capsys):
    assert "no such model file" in error_of(capsys, "plan", tmp_path / "missing.keras")
    assert "'preserve'" in error_of(capsys, "plan", path, "--weights", "old")
    assert "[0, 1)" in error_of(capsys, "rewrite", path, "--rate", "1.5")
    assert "invalid float" in error_of(capsys, "rewrite", path, "--rate", "much")
    assert "invalid choice" in error_of(capsys, "fly", path)
    assert "file of its own" in error_of(capsys, "rewrite", path, "-o", path)
    assert "must end in" in error_of(capsys, "rewrite", path, "-o", tmp_path / "out.h5")
    assert "no such folder" in error_of(
        capsys, "rewrite", path, "-o", tmp_path / "nowhere" / "out.keras"
    )


def test_what_a_command_reads_it_does_not_write_over(path, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 8, 8, 3), "float32"))
    before = path.read_bytes(), (tmp_path / "data.npz").read_bytes()
    measure = ("measure", path, "--data", tmp_path / "data.npz")
    for command in (
        ("plan", path, "-o", path),
        ("inspect", path, "-o", path),
        (*measure, "-o", path),
        (*measure, "--plot", tmp_path / "data.npz"),
    ):
        assert "file of its own" in error_of(capsys, *command)
    assert (path.read_bytes(), (tmp_path / "data.npz").read_bytes()) == before


def test_a_truncated_model_file_is_one_clear_error_and_leaves_nothing(path, capsys):
    path.write_bytes(path.read_bytes()[:-200])
    assert "complete" in error_of(capsys, "rewrite", path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.keras"]


def test_a_model_of_unknown_classes_is_one_clear_error(tmp_path, capsys):
    class Unknown(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    keras.Sequential([keras.Input((2,)), Unknown(), keras.layers.Dense(2)]).save(
        tmp_path / "model.keras"
    )
    assert "Unknown" in error_of(capsys, "inspect", tmp_path / "model.keras")


def test_help_and_module(path):
    assert main(["--help"]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "keras_ic", "inspect", str(path) + "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_version(capsys):
    assert main(["--version"]) == 0
    assert keras_ic.__version__ in capsys.readouterr().out


def test_rewritten_model_is_refused(path, capsys):
    assert main(["rewrite", str(path)]) == 0
    capsys.readouterr()
    assert "IC form already" in error_of(capsys, "rewrite", path.with_name("model_ic.keras"))
    assert np.array_equal(
        sorted(file.name for file in path.parent.iterdir()), ["model.keras", "model_ic.keras"]
    )


def test_modules_of_ones_own_are_imported_first(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('own')\n"
        "class Doubled(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        doubled = importlib.import_module("own_layers").Doubled()
    keras.Sequential([keras.Input((4,)), doubled, keras.layers.Dense(2)]).save("own.keras")
    # As in another process.
    del sys.modules["own_layers"], keras.saving.get_custom_objects()["own>Doubled"]
    assert "--import" in error_of(capsys, "inspect", "own.keras")
    message = error_of(capsys, "inspect", "own.keras", "--import", "no_such_module")
    assert message.endswith("Received: --import no_such_module\n")
    assert main(["inspect", "own.keras", "--import", "own_layers"]) == 0
    assert "dense" in capsys.readouterr().out
