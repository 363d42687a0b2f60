import keras
import numpy as np
import pytest

import keras_ic
from keras_ic.cli import main
from keras_ic.surgery import plan_fold
from tests.surgery import models


@pytest.fixture
def path(tmp_path):
    keras_ic.rewrite(models.randomize(models.small_convolutional()), weights="preserve").save(
        tmp_path / "model.keras"
    )
    return tmp_path / "model.keras"


def test_fold_writes_the_model_and_prints_the_plan(path, capsys):
    before = path.read_bytes()
    assert main(["fold", str(path)]) == 0
    target = path.with_name("model_folded.keras")
    given, new = keras.models.load_model(path), keras.models.load_model(target)
    assert (
        capsys.readouterr().out == f"{plan_fold(given)}\n{target}\n" and path.read_bytes() == before
    )
    assert models.ics(given) and not models.ics(new)
    models.assert_same_function(given, new, 1e-5)


def test_fold_to_a_chosen_file(path, tmp_path):
    assert main(["fold", str(path), "-o", str(tmp_path / "other.keras")]) == 0
    assert np.isfinite(
        keras.models.load_model(tmp_path / "other.keras").predict(np.ones((1, 8, 8, 3)), verbose=0)
    ).all()


def test_nothing_to_fold_gives_an_equal_copy(path, tmp_path, capsys):
    once, twice = tmp_path / "once.keras", tmp_path / "twice.keras"
    assert main(["fold", str(path), "-o", str(once)]) == 0
    assert main(["fold", str(once), "-o", str(twice)]) == 0
    assert "Nothing to fold" in capsys.readouterr().out
    one, other = keras.models.load_model(once), keras.models.load_model(twice)
    models.assert_same_function(one, other, 0)


def test_errors_that_the_user_can_mend(path, tmp_path, capsys):
    assert main(["fold", str(path), "-o", str(tmp_path / "other.keras")]) == 0
    capsys.readouterr()
    for arguments, said in (
        ([path.with_name("missing.keras")], "no such model file"),
        ([path, "-o", path], "file of its own"),
        ([path, "-o", tmp_path / "out.h5"], "must end in"),
    ):
        assert main(["fold", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1 and said in captured.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.keras", "other.keras"]
