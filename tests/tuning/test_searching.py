"""Whole searches on the embedded digits."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ic import saving
from keras_ic.training import TrainingConfig, datasets, read
from keras_ic.training.datasets import in_memory
from keras_ic.tuning import SearchSpace, best, search, searching, trial

pytestmark = pytest.mark.tensorflow_only  # the images come through tf.data
RECIPE = {"data": "digits", "model": "small", "train_size": 64, "validation": 0.25, "epochs": 2}
SPACE = SearchSpace(rate_schedules="constant")

# Searches until it is killed, in the middle of its first trial, after an epoch.
KILLED = """
import os, signal, sys
import keras
from keras_ic.tuning import trial
from tests.tuning import quick
from tests.tuning.test_searching import searched

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

trial.training.run = quick.run
searched(sys.argv[1], tuner="grid", callbacks=[Kill()])
"""


def searched(folder, **values):
    recipe = {name: values.pop(name) for name in list(values) if name in RECIPE}
    arguments = {"space": SPACE, "tuner": "random", "trials": 2, "verbose": 0, **values}
    return search(TrainingConfig(**{**RECIPE, **recipe}), folder, **arguments)


def lines(folder):
    """The record of a search without the times."""
    found = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("seconds", None)
    return found


@pytest.mark.parametrize("tuner", ["bayesian", "grid"])  # random and Hyperband are below
def test_each_tuner(tmp_path, quick, tuner):
    found = searched(tmp_path, tuner=tuner, trials=2, epochs=1)
    made = lines(tmp_path)
    assert [line["trial"] for line in made] == ["0", "1"] and {line["status"] for line in made} == {
        "COMPLETED"
    }
    assert found["score"] == max(line["score"] for line in made)
    for line in made:
        run = read(tmp_path / "trials" / line["trial"] / "seed0")
        assert run.config == TrainingConfig(**line["configuration"])
        assert run.config.learning_rate == pytest.approx(line["values"]["learning_rate"])
        assert [run.values("val_accuracy")[-1]] == line["scores"] and line["curve"] == run.values(
            "val_accuracy"
        )
        if line["values"]["rate_depth"] == "linear":
            assert run.config.rates == (
                line["values"]["rate_first"],
                line["values"]["rate_last"],
            )
    for name in ("best.keras", "best.json", "table.md", "search.json"):
        assert (tmp_path / name).stat().st_size > 100
    assert len(list(tmp_path.glob("tensorboard/*/seed0/events*"))) == 2


def test_a_search_that_is_killed_goes_on_to_the_same_numbers(tmp_path, quick):
    """What the tuners choose after a stop is a test of the oracles, what a training comes to is one
    of the trials.
    """
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "search")],
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert lines(tmp_path / "search") == []
    (begun,) = read(tmp_path / "search" / "trials" / "0" / "seed0").epochs
    found = searched(tmp_path / "search", tuner="grid")
    through = searched(tmp_path / "through", tuner="grid")
    assert lines(tmp_path / "search") == lines(tmp_path / "through")
    assert read(tmp_path / "search" / "trials" / "0" / "seed0").epochs[0] == begun
    assert {**found, "seconds": 0} == {**through, "seconds": 0}


def test_hyperband_goes_on_with_what_it_has_trained(tmp_path, quick):
    """Three trials of one epoch, the best of which continues."""
    space = SearchSpace(depths="uniform", rate_schedules="constant")
    searched(tmp_path, tuner="hyperband", trials=4, epochs=3, space=space)
    made = lines(tmp_path)
    assert [line["epochs"] for line in made] == [1, 1, 1, 3]
    last = made[-1]
    (first,) = [line for line in made[:3] if line["values"] == last["values"]]
    assert first["score"] == max(line["score"] for line in made[:3])
    assert first["curve"] == last["curve"][:1]


def test_seeds_of_a_trial(tmp_path, quick):
    found = searched(tmp_path, trials=1, seeds=2, epochs=1)
    runs = [read(tmp_path / "trials" / "0" / f"seed{seed}") for seed in (0, 1)]
    assert [run.config.seed for run in runs] == [0, 1]
    assert found["scores"] == [run.values("val_accuracy")[-1] for run in runs] and found[
        "score"
    ] == pytest.approx(np.mean(found["scores"]))
    assert len(found["test_accuracies"]) == 2


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(tmp_path, quick, monkeypatch):
    real = trial.training.run

    def run(configuration, folder, **rest):
        if folder.parent.name == "0":
            raise RuntimeError("out of\nmemory")
        return real(configuration, folder, **rest)

    monkeypatch.setattr(trial.training, "run", run)
    found = searched(tmp_path, epochs=1)
    failed, done = lines(tmp_path)
    assert (failed["status"], failed["error"]) == (
        "FAILED",
        "RuntimeError: out of memory",
    ) and "score" not in failed
    assert "out of\nmemory" in (tmp_path / "trials" / "0" / "error.txt").read_text()
    assert done["status"] == "COMPLETED" and found["trial"] == "1"
    assert "| failed: RuntimeError: out of memory |" in (tmp_path / "table.md").read_text()


def test_a_learning_rate_at_which_every_trial_diverges(tmp_path):
    space = SearchSpace(learning_rate=1e38, schedules="constant", depths="uniform")
    with pytest.raises(
        ValueError,
        match=(
            r"None of 1 trials came to its end. The error of the last was: DivergedError: The loss"
            r" is not finite"
        ),
    ):
        search(
            TrainingConfig(
                **{**RECIPE, "optimizer": "sgd", "weight_decay": 10, "recalibrate": "off"}
            ),
            tmp_path,
            space,
            "random",
            trials=1,
            verbose=0,
        )
    assert lines(tmp_path)[0]["status"] == "FAILED" and not (tmp_path / "best.keras").exists()


def test_what_is_not_the_trials_fault_stops_the_search(tmp_path, quick, monkeypatch):
    def run(*arguments, **others):
        raise datasets.MissingDataError("no images")

    with monkeypatch.context() as patch:
        patch.setattr(trial.training, "run", run)
        with pytest.raises(datasets.MissingDataError):
            searched(tmp_path, trials=1, epochs=1)
    assert lines(tmp_path) == []
    searched(tmp_path, trials=1, epochs=1)
    assert lines(tmp_path)[0]["status"] == "COMPLETED"


def test_poor_trials_are_stopped(tmp_path, quick, monkeypatch):
    asked = []

    def is_poor(curve, others):
        asked.append((list(curve), others))
        return len(others) == 1 and len(curve) == 1

    monkeypatch.setattr(trial, "is_poor", is_poor)
    searched(tmp_path, prune=True, trials=3, seeds=2)
    first, second, third = lines(tmp_path)
    assert [line["status"] for line in (first, second, third)] == [
        "COMPLETED",
        "PRUNED",
        "COMPLETED",
    ]
    assert (
        second["epochs"] == len(second["curve"]) == len(second["scores"]) == 1
        and not (tmp_path / "trials" / "1" / "seed1").exists()
    )
    # A first trial has none to compare with, later seeds do not compare.
    compared = [(curve, others) for curve, others in asked if others]
    assert compared[0] == (second["curve"], [first["curve"]]) and compared[1][1] == [
        first["curve"],
        second["curve"],
    ]
    assert "as poor, after 1 epoch |" in (tmp_path / "table.md").read_text()


def test_the_test_set_is_read_once_at_the_end(tmp_path, quick, monkeypatch):
    (x, _), (x_test, y_test) = datasets.digits()
    real, judged = datasets.test_dataset, []

    def test_dataset(x, *arguments):
        judged.append(np.array_equal(x, x_test))
        return real(x, *arguments)

    monkeypatch.setattr(datasets, "test_dataset", test_dataset)
    monkeypatch.setattr(in_memory, "test_dataset", test_dataset)
    found = searched(tmp_path, epochs=1)
    assert judged == [True]
    assert searched(tmp_path, epochs=1) == found
    assert judged == [True]
    kept = x[:64][
        np.setdiff1d(np.arange(64), np.sort(np.random.RandomState(0).permutation(64)[:16]))
    ]
    model = saving.load_model(tmp_path / "best.keras")
    result = model.evaluate(
        real(x_test, y_test, 250, *datasets.channel_statistics(kept)),
        verbose=0,
        return_dict=True,
    )
    assert found["test_accuracies"] == [pytest.approx(result["accuracy"])]


def test_the_number_of_trials_may_be_changed_until_the_end(tmp_path, quick, monkeypatch):
    found = searched(tmp_path / "through", trials=2, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(best, "conclude", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "longer", trials=1, epochs=1)
    searched(tmp_path / "longer", trials=2, epochs=1)
    assert lines(tmp_path / "longer") == lines(tmp_path / "through")
    with pytest.raises(
        ValueError, match=r"This search of 2 trials has come to its end; .* Received: trials=3 for "
    ):
        searched(tmp_path / "longer", trials=3, epochs=1)
    # Only the best keeps its model.
    for folder in (tmp_path / "through", tmp_path / "longer"):
        assert [path.parts[-3] for path in folder.glob("trials/*/seed*/*.keras")] == [
            found["trial"]
        ]
        assert len(list(folder.glob("trials/*/seed0/record.jsonl"))) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 0}, r"`trials` must be an integer above 0. Received: trials=0"),
        ({"seeds": 0}, r"Received: seeds=0"),
        ({"workers": -1}, r"`workers` must be an integer of 0 or more. Received: workers=-1"),
        ({"tuner": "bayes"}, r"did you mean 'bayesian'\? Received: tuner='bayes'"),
        (
            {"tuner": "hyperband", "prune": True},
            r"Hyperband stops poor trials itself. Received: prune=True",
        ),
        ({"prune": 1}, r"`prune` must be True or False"),
        ({"validation": 0}, r"`validation` must leave out a part .* Received: validation=0"),
        ({"model": "smal"}, r"did you mean 'small'\? Received: model='smal'"),
        ({"space": SearchSpace(learning_rate=None)}, r"Received: learning_rate=None"),
        ({"space": 3}, r"`space` must be a `SearchSpace` or None. Received: space=3"),
    ],
)
def test_bad_arguments(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        searched(tmp_path / "search", **values)
    assert not (tmp_path / "search").exists()


def test_what_a_recipe_has_for_ic_layers_outlives_the_baseline(tmp_path):
    recipe = TrainingConfig(**RECIPE, classifier_ic=False)
    what = searching.Search(recipe, SearchSpace(orders=("usual", "ic")), "random", 2, 1, False)
    searching.description.claim(tmp_path, what)
    searching.description.claim(tmp_path, what)
    found = searching.description.read(tmp_path)
    assert found == what and found.recipe.classifier_ic is False
    searching.description.check(tmp_path, dataclasses.replace(what, trials=5))
    with pytest.raises(
        ValueError, match=r"This folder holds another search \(seeds 1 there, 2 here\)"
    ):
        searching.description.check(tmp_path, dataclasses.replace(what, seeds=2))


def test_other_folders_are_refused_and_stay_as_they_are(tmp_path):
    folder = tmp_path / "search"
    folder.mkdir()
    searching.description.claim(
        folder, searching.Search(TrainingConfig(**RECIPE), SPACE, "random", 2, 1, False)
    )
    before = (folder / "search.json").read_bytes()
    for values, message in (
        (
            {"epochs": 5},
            r"This folder holds another search \(epochs 2 there, 5 here\); .* Received: '.*search'",
        ),
        ({"epochs": 5, "trials": 3}, r"\(epochs 2 there, 5 here, trials 2 there, 3 here\)"),
        (
            {"space": SearchSpace(rate=0.1, rate_schedules="constant")},
            r"rate \[0.0, 0.3\] there, \[0.1, 0.1\] here",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            searched(folder, **values)
    assert (folder / "search.json").read_bytes() == before and len(list(folder.iterdir())) == 1
    (folder / "search.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"This file is damaged .*; restore it .* Received: '.*search.json'"
    ):
        searched(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"This folder holds other files, but no search"):
        searched(tmp_path / "other")
    with pytest.raises(ValueError, match=r"The folder is a file; choose another. Received"):
        searched(tmp_path / "other" / "notes.txt")
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_the_same_command_twice_at_once(tmp_path, quick):
    """The second is told who has the folder; the first goes on."""
    messages = []

    class Again(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with pytest.raises(ValueError) as caught:
                searched(tmp_path / "search", trials=1, epochs=1)
            messages.append(str(caught.value))

    searched(tmp_path / "search", trials=1, epochs=1, callbacks=[Again()])
    (message,) = messages
    wanted = rf"Another run has this folder \(process {os.getpid()} on .*Received: .*search'"
    assert re.search(wanted, message) and len(lines(tmp_path / "search")) == 1


def test_what_sets_nothing_is_not_searched(tmp_path, quick):
    """The network has three IC layers."""
    space = SearchSpace(stages=5, depths="stages", rate_schedules="constant", schedules="cosine")
    searched(tmp_path, trials=1, epochs=1, space=space)
    assert set(lines(tmp_path)[0]["values"]) == {"rate_1", "rate_2", "rate_3", "learning_rate"}


def test_a_damaged_result_ends_the_search_and_can_be_deleted(tmp_path, quick):
    path = tmp_path / "trials" / "0" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    searching.description._write(
        tmp_path, searching.Search(TrainingConfig(**RECIPE), SPACE, "random", 1, 1, False)
    )
    with pytest.raises(ValueError, match=r"damaged .*; delete it.* Received: '.*result.json'"):
        searched(tmp_path, trials=1)
    path.unlink()
    assert searched(tmp_path, trials=1)["trial"] == "0"


def test_image_files_are_judged_on_their_validation_images(tmp_path, quick):
    """Which are all that there are: nothing is left to be a test set."""
    for split in ("train", "val"):
        for label in ("a", "b"):
            path = tmp_path / "images" / split / label / "0.JPEG"
            path.parent.mkdir(parents=True)
            keras.utils.save_img(path, np.zeros((40, 40, 3)))
    recipe = TrainingConfig(
        data=str(tmp_path / "images"), model="small", image_size=32, epochs=1, batch=2
    )
    found = search(recipe, tmp_path / "search", SPACE, tuner="random", trials=1, verbose=0)
    assert found["status"] == "COMPLETED" and "test_accuracies" not in found
    table = (tmp_path / "search" / "table.md").read_text()
    assert "Judged on the validation images" in table and "Test accuracy" not in table


def test_a_terminal_shows_a_bar_below_the_lines(tmp_path, quick, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    searched(tmp_path, trials=2, epochs=1, verbose=1)
    shown = capsys.readouterr().out
    assert "0/2" in shown and "2/2" in shown
    assert "\x1b[Ktrial 0: " in shown and "\x1b[Ktrial 1: " in shown
