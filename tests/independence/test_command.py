"""The verb `measure` of the command."""

import json

import keras
import numpy as np
import pytest

import keras_ic
from keras_ic.cli import main
from keras_ic.training import datasets


@pytest.fixture
def path(tmp_path):
    keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras_ic.IC(0.1),
            keras.layers.Dense(2, name="dense"),
        ]
    ).save(tmp_path / "model.keras")
    return str(tmp_path / "model.keras")


def test_measure(path, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x)
    outputs = ["-o", str(tmp_path / "out.json"), "--plot", str(tmp_path / "figure.png")]
    assert (
        main(
            [
                "measure",
                path,
                "--data",
                str(tmp_path / "data.npz"),
                "--batch",
                "20",
                "--steps",
                "1",
                *outputs,
            ]
        )
        == 0
    )
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["rows"] for row in written["rows"]] == [20, 20]
    expected = keras_ic.measure(keras.models.load_model(path), x, 1, batch_size=20, verbose=0)
    assert written["rows"][1] == expected.to_dict()["rows"][1]
    assert "dense" in capsys.readouterr().out
    assert (tmp_path / "figure.png").exists()


def test_measure_on_digits(path, capsys):
    pytest.importorskip("sklearn")
    assert main(["measure", path, "--data", "digits", "--batch", "359"]) == 0
    assert "64" in capsys.readouterr().out


def test_measure_on_standardized_images(path, tmp_path):
    pytest.importorskip("sklearn")
    (train, _), (test, _) = datasets.digits()
    mean, std = datasets.channel_statistics(train)
    expected = keras_ic.measure(
        keras.models.load_model(path), (test - mean) / std, batch_size=32, verbose=0
    )
    assert (
        main(
            ["measure", path, "--data", "digits", "--standardize", "-o", str(tmp_path / "out.json")]
        )
        == 0
    )
    assert json.loads((tmp_path / "out.json").read_text()) == expected.to_dict()


def test_measure_takes_the_folder_of_the_images(path, tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    assert main(["measure", path, "--data", "cifar10", "--data-dir", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_outputs_are_looked_at_before_the_measuring(path, tmp_path, capsys):
    command = ["measure", path, "--data", str(tmp_path / "none.npz")]
    for outputs, said in (
        (["-o", str(tmp_path / "no" / "out.json")], "no such folder"),
        (["--plot", str(tmp_path / "no" / "figure.png")], "no such folder"),
        (["--plot", str(tmp_path / "figure")], "chooses the format"),
    ):
        assert main([*command, *outputs]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("x", [np.array(3.0), np.array(["a"] * 4)])
def test_an_array_of_no_examples(path, tmp_path, capsys, x):
    np.savez(tmp_path / "data.npz", x=x)
    assert main(["measure", path, "--data", str(tmp_path / "data.npz")]) == 2
    assert "must hold numbers, one example a row. Received: " in capsys.readouterr().err


def test_standardize_is_not_for_files(path, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 8, 8, 1)))
    assert main(["measure", path, "--data", str(tmp_path / "data.npz"), "--standardize"]) == 2
    assert "--standardize" in capsys.readouterr().err


def test_wrong_data_ends_in_one_line(path, tmp_path, capsys):
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 no archive")
    np.savez(tmp_path / "unnamed.npz", np.zeros(3))
    for name in (
        "cifar",
        str(tmp_path / "none.npz"),
        str(tmp_path / "damaged.npz"),
        str(tmp_path / "unnamed.npz"),
    ):
        assert main(["measure", path, "--data", name]) == 2
        error = capsys.readouterr().err
        assert error.startswith("keras-ic measure: ") and error.count("\n") == 1
        assert name in error
