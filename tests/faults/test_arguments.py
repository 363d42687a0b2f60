"""Any arguments on the command line: done, or one line that says what to fix. Nothing is trained
here: `train` and `tune` get --dry-run.
"""

import contextlib
import io

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import keras_ic
from keras_ic.cli import main

FUZZ = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    max_examples=150,
)
NUMBERS = ["0", "1", "0.05", "-1", "1e400", "nan", "inf", "2**3", "", "0,0.1", "१"]
WORDS = [
    "digits",
    "small",
    "ic",
    "usual",
    "resnet8",
    "resnet9",
    "cosine",
    "preserve",
    "copy",
    "none",
    "None",
    "é",
    "a\nb",
    "-",
    "--",
    "%s",
    "{}",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="relu"),
            keras_ic.IC(0.1),
            keras.layers.Dense(2),
        ]
    )
    keras_ic.recalibrate(
        model, np.random.default_rng(0).normal(size=(16, 4)).astype("float32"), verbose=0
    )
    model.save(folder / "model.keras")
    (folder / "text.keras").write_text("no model")
    (folder / "record.jsonl").write_text("{\n")
    return folder


def check(arguments):
    """Runs the command, and asserts what every run promises."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    assert code in (0, 2)
    if code == 2:
        assert err.getvalue().count("\n") == 1 and err.getvalue().startswith("keras-ic")
    return code


OF_MODELS = ["--rate", "--weights", "--normalization", "--bias", "--no-share", "--no-skip-first"]
OF_MODELS += ["--data", "--steps", "--batch", "--seed", "--help", "--x"]


@settings(FUZZ)
@given(
    verb=st.sampled_from(["plan", "rewrite", "fold", "inspect", "measure", "report", "fly", ""]),
    model=st.sampled_from(["model.keras", "text.keras", "none.keras", ".", "record.jsonl"]),
    rest=st.lists(
        st.one_of(
            st.sampled_from(OF_MODELS), st.sampled_from(NUMBERS + WORDS), st.text(max_size=4)
        ),
        max_size=5,
    ),
)
@example(verb="measure", model="model.keras", rest=["--data", "digits", "--steps", "1e400"])
@example(verb="measure", model="model.keras", rest=["--data", "digits"])
@example(verb="plan", model="model.keras", rest=["--rate", "nan"])
def test_verbs_of_models(folder, verb, model, rest):
    check(
        [
            verb,
            str(folder / model),
            *rest,
            *(["-o", str(folder / "new.keras")] if verb in ("rewrite", "fold") else []),
        ]
    )


OF_TRAIN = [
    "--data",
    "--model",
    "--order",
    "--rate",
    "--seed",
    "--epochs",
    "--batch",
    "--train-size",
    "--image-size",
    "--optimizer",
    "--schedule",
]
OF_TRAIN += [
    "--learning-rate",
    "--weight-decay",
    "--dropout",
    "--rate-schedule",
    "--rate-depth",
    "--rates",
    "--ic-layers",
    "--dtype",
    "--validation",
]
OF_TRAIN += ["--no-augment", "--keep-batch-norm", "--recalibrate", "--out"]


@pytest.mark.tensorflow_only
@settings(FUZZ, max_examples=75)
@given(
    rest=st.lists(
        st.one_of(st.sampled_from(OF_TRAIN), st.sampled_from(NUMBERS + WORDS)), max_size=8
    )
)
@example(rest=["--rates", "0,"])
@example(rest=["--learning-rate", "1e400"])
@example(rest=["--epochs", "9" * 5000])
@example(rest=["--batch", "1_0"])
@example(rest=["--data", "cifar10", "--model", "small", "--order", "conv-relu-ic"])
def test_train(folder, rest, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    check(["train", "--data", "digits", "--model", "small", *rest, "--dry-run"])
    assert sorted(folder.iterdir()) == before
