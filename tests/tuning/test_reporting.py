import json

import numpy as np
import pytest

from keras_ic.training import TrainingConfig
from keras_ic.tuning import SearchSpace, best, description, report

RECIPE = TrainingConfig(data="digits", model="small", epochs=3, validation=0.1)


def write(folder, scores, seeds=2, **others):
    """A search in the record of which are trials with these scores, of rates 0, 0.05 and so on."""
    description.claim(
        folder,
        description.Search(RECIPE, SearchSpace(orders=("usual", "ic")), "random", 20, seeds, False),
    )
    lines = []
    for index, each in enumerate(scores):
        values = {
            "order": "relu-ic-conv",
            "rate_depth": "uniform",
            "rate": round(0.05 * index, 2),
            "learning_rate": 0.001 * (index + 1),
        }
        configuration = TrainingConfig(**{**RECIPE.to_dict(), "rate": values["rate"]}).to_dict()
        line = {
            "trial": str(index),
            "values": values,
            "status": "COMPLETED",
            "score": float(np.mean(each)),
            "scores": list(each),
            "epochs": 3,
        }
        lines.append({**line, "configuration": configuration, "curve": [0.1, 0.2, each[0]]})
    lines += others.get("lines", [])
    (folder / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_is_noise_is_not_called_an_optimum(tmp_path):
    write(tmp_path, [(0.80, 0.82), (0.81, 0.83), (0.50, 0.52)])
    results = report(tmp_path)
    assert [result["trial"] for result in results] == ["1", "0", "2"]
    # The differences are 0.01 and 0.31; the spread of a seed is sqrt(0.0002) in each trial, so
    # their standard error is sqrt(0.0002), of 3 degrees.
    assert results[1]["p_value"] == pytest.approx(2 * 0.2654, rel=1e-3)
    assert results[2]["p_value"] < 0.001
    table = (tmp_path / "table.md").read_text()
    assert (
        "The best, trial 1, is not told apart from 1 of the 2 others that came as far (p of 0.05 or"
        " more): 0." in table
    )
    assert (
        "| 1 | 82.00 ± 1.41 |  | relu-ic-conv | uniform | 0.05 | 0.002 | after 3 epochs |" in table
    )


def test_one_seed_says_nothing_of_noise(tmp_path):
    write(tmp_path, [(0.8,), (0.9,)], seeds=1)
    assert "p_value" not in report(tmp_path)[1]
    assert "how much of a difference is noise is not known" in (tmp_path / "table.md").read_text()


def test_equal_scores_and_no_spread(tmp_path):
    write(tmp_path, [(0.8, 0.8), (0.8, 0.8), (0.7, 0.7)])
    assert [result.get("p_value") for result in report(tmp_path)] == [None, 1.0, 0.0]


def test_stopped_and_failed_trials_are_in_the_table_and_not_the_best(tmp_path):
    configuration = RECIPE.to_dict()
    poor = {
        "trial": "8",
        "values": {"order": "conv-bn-relu"},
        "status": "PRUNED",
        "score": 0.99,
        "scores": [0.99],
        "epochs": 2,
        "configuration": configuration,
    }
    failed = {
        "trial": "9",
        "values": {"order": "conv-bn-relu"},
        "status": "FAILED",
        "error": "a | b",
        "configuration": configuration,
    }
    write(tmp_path, [(0.8, 0.9)], lines=[failed, poor])
    assert [result["trial"] for result in report(tmp_path)] == ["0", "8", "9"]
    table = (tmp_path / "table.md").read_text()
    assert "| as poor, after 2 epochs |" in table and "| failed: a / b |" in table
    assert best.best([failed, poor]) is None
    (tmp_path / "failed").mkdir()
    description.claim(tmp_path / "failed", description.read(tmp_path))
    (tmp_path / "failed" / "trials.jsonl").write_text(json.dumps(failed) + "\n")
    report(tmp_path / "failed")
    assert "No trial came to its end." in (tmp_path / "failed" / "table.md").read_text()


def test_no_search_or_nothing_to_report(tmp_path):
    with pytest.raises(ValueError, match=r"There is no search here; .* Received: "):
        report(tmp_path)
    write(tmp_path, [])
    with pytest.raises(ValueError, match=r"No trial of this search has ended yet. Received: "):
        report(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trials.jsonl", "\n"),
        ("trials.jsonl", "{}\n"),
        ("trials.jsonl", "null\n"),
        ("trials.jsonl", "[" * 100_000 + "\n"),
        (
            "trials.jsonl",
            '{"trial": "0", "values": {}, "status": "COMPLETED", "configuration": 3}\n',
        ),
        ("best.json", ""),
        ("best.json", "{}"),
        ("best.json", "null"),
        ("best.json", "{"),
        ("best.json", '{"trial": 0, "values": 1, "score": 2, "command": 3, "configuration": {}'),
        ("search.json", ""),
        ("search.json", "{}"),
        ("search.json", '{"recipe": {}, "space": {"rate": "x"}}'),
        ("search.json", '{"recipe": 3, "space": {}}'),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, name, text):
    write(tmp_path, [(0.8, 0.9)])
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"damaged .* Received: '.*{name}'$") as caught:
        report(tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / name).read_text() == text
