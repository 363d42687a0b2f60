"""One trial. The trainings are real where they are not `quick`."""

import json
import threading
import time

import pytest

from keras_ic import training
from keras_ic.training import TrainingConfig, record
from keras_ic.tuning import SearchSpace, description, trial
from keras_ic.tuning.trial_queue import LeaseLostError
from keras_ic.utils.folder_lock import folder_lock
from tests.tuning.test_searching import RECIPE

SPACE = SearchSpace(depths="uniform", rate_schedules="constant", schedules="cosine")
VALUES = {"rate": 0.1, "learning_rate": 1e-3}
SEARCH = description.Search(TrainingConfig(**RECIPE), SPACE, "random", 2, 1, False)


@pytest.mark.tensorflow_only
def test_a_run_that_ends_early_can_be_gone_on_with(tmp_path):
    """To the numbers of a run that was never stopped, as Hyperband does it."""
    first = trial.run_trial(SEARCH, "0", {**VALUES, "tuner/epochs": 1}, tmp_path)
    assert first["epochs"] == 1 and (tmp_path / "trials/0/seed0/checkpoint.keras").exists()
    past = {"tuner/epochs": 2, "tuner/trial_id": "0"}
    second = trial.run_trial(SEARCH, "1", {**VALUES, **past}, tmp_path)
    config = TrainingConfig(**second["configuration"])
    through = training.run(config, tmp_path / "through", verbose=0)
    assert second["curve"] == through.values("val_accuracy")
    assert first["curve"] == second["curve"][:1] and second["status"] == "COMPLETED"


@pytest.mark.parametrize("name", ["", "..", "../0", "0/1", "/etc", "a", "\u0661", 3, None])
def test_ids_of_trials_are_checked(tmp_path, name):
    with pytest.raises(ValueError, match=r"The id of a trial must be digits. Received: "):
        trial.folder_of(tmp_path, name)


def test_nothing_is_written_once_the_trial_is_anothers(tmp_path, quick):
    def confirm():
        raise LeaseLostError("lost")

    with pytest.raises(LeaseLostError):
        trial.run_trial(SEARCH, "0", VALUES, tmp_path, confirm=confirm)
    assert not (tmp_path / "trials/0/result.json").exists()


def test_a_folder_that_a_suspended_worker_has_is_waited_for(tmp_path, quick):
    quick.setattr(trial, "WAIT_FOR_FOLDER", 0.05)
    asked, found = [], []
    own = tmp_path / "trials" / "0"
    thread = threading.Thread(
        target=lambda: found.append(
            trial.run_trial(SEARCH, "0", VALUES, tmp_path, confirm=lambda: asked.append(1))
        )
    )
    with folder_lock(own):
        thread.start()
        deadline = time.monotonic() + 60
        while len(asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not found and not (own / "seed0").exists()
    thread.join()
    assert found[0]["status"] == "COMPLETED"


def test_the_score_is_that_of_the_model_that_is_kept(tmp_path, quick):
    """Whose statistics may have been re-estimated at the end."""
    real = trial.training.run

    def run(config, folder, **others):
        real(config, folder, **others)
        record.append(folder, {"recalibrated": {"val_loss": 0.0, "val_accuracy": 0.75}})

    quick.setattr(trial.training, "run", run)
    assert trial.run_trial(SEARCH, "0", VALUES, tmp_path)["score"] == 0.75


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "[" * 100_000])
def test_a_damaged_result_is_named(tmp_path, text):
    path = tmp_path / "trials" / "0" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"damaged .*; delete it.*Received: '.*result.json'$"):
        trial.read_result(tmp_path, "0")


def test_a_result_that_is_there_is_not_made_again(tmp_path, quick):
    first = trial.run_trial(SEARCH, "0", VALUES, tmp_path)
    quick.setattr(trial.training, "run", None)
    assert trial.run_trial(SEARCH, "0", VALUES, tmp_path) == json.loads(json.dumps(first))
