"""What a search has found, as a table, with what is noise told from what is not."""

import pathlib
from typing import Any

import numpy as np

from keras_ic import saving
from keras_ic.training.config import TrainingConfig
from keras_ic.training.summary import spread
from keras_ic.tuning import best, description
from keras_ic.tuning.oracles import RESULTS
from keras_ic.utils.json_files import checking_content, read_json_lines
from keras_ic.utils.lazy_imports import needed

TABLE = "table.md"
RANKS = {"COMPLETED": 0, "PRUNED": 1, "FAILED": 2}
ADVICE = "restore it from a copy, or give the command of the search again, which writes it again"
LEVEL = 0.05  # of p, below which a difference counts


def report(folder: Any) -> list[dict[str, Any]]:
    """Writes `table.md` of a search into its folder.

    The table has a row for each trial, the best first. With several seeds, each trial is compared
    with the best by a t-test whose spread is that of the seeds of all trials together (Fisher's
    least significant difference, 1935), since few seeds of a trial say little of its own. Those
    that are not told apart from the best are named: where they are many, the search has found a
    region and no optimum.

    Args:
        folder: Path of the folder of a search, which may still be running.

    Returns:
        List of the lines of `trials.jsonl`, the best first, then those that were stopped or failed;
        with several seeds, with the `p_value` of the comparison with the best.

    Raises:
        ValueError: If there is no search, or none of its trials has ended.
        ImportError: If SciPy is not installed.

    Example:

    ```python
    import pathlib, tempfile
    from keras_ic.training import TrainingConfig
    from keras_ic.tuning import SearchSpace, report, search

    folder = pathlib.Path(tempfile.mkdtemp())
    recipe = TrainingConfig(data="digits", model="small", epochs=1, train_size=64, validation=0.25)
    search(recipe, folder, SearchSpace(depths="uniform"), tuner="random", trials=2, verbose=0)
    assert len(report(folder)) == 2 and (folder / "table.md").exists()
    ```
    """
    folder = pathlib.Path(folder)
    search = description.read(folder)
    path = folder / RESULTS
    results = _read(path) if path.exists() else []
    if not results:
        raise ValueError(f"No trial of this search has ended yet. Received: {str(folder)!r}")
    found = best.best(results)
    results.sort(
        key=lambda result: (
            result is not found,
            RANKS[result["status"]],
            -result.get("epochs", 0),
            -result.get("score", 0),
        )
    )
    if found is not None and search.seeds > 1:
        _add_p_values(results, found, search.seeds)
    text = [_heading(search), "", _table(results), "", _said(search, results, found), ""]
    if (folder / best.NAME).exists():
        text += [_test(best.read_best(folder)), ""]
    with saving.replacing(folder / TABLE) as new:
        new.write_text("\n".join(text), encoding="utf-8")
    return results


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    results = read_json_lines(path, ("trial", "values", "status", "configuration"), ADVICE)
    for number, result in enumerate(results, 1):
        with checking_content(path, number, ADVICE):
            TrainingConfig(**result["configuration"])
            dict(result["values"])
            if result["status"] == "FAILED":
                str(result["error"])
            elif result["status"] not in RANKS:
                raise ValueError(f"its status is {result['status']!r}")
            else:
                float(result["score"]), int(result["epochs"])
                [float(each) for each in result["scores"]]
    return results


def _add_p_values(results: list[dict[str, Any]], found: dict[str, Any], seeds: int) -> None:
    """Compares the trials that came as far as the best with it."""
    compared = [
        result
        for result in results
        if result["status"] == "COMPLETED" and result["epochs"] == found["epochs"]
    ]
    variance = np.mean([np.var(result["scores"], ddof=1) for result in compared])
    error, degrees = np.sqrt(2 * variance / seeds), len(compared) * (seeds - 1)
    t = needed("scipy.stats", "SciPy", "tune").t
    for result in compared:
        difference = found["score"] - result["score"]
        if result is not found and difference:
            away = difference / error if error else np.inf
            result["p_value"] = float(2 * t.sf(away, degrees))
        elif result is not found:
            result["p_value"] = 1.0


def _heading(search: description.Search) -> str:
    recipe = search.recipe
    size = f", {recipe.train_size:,} images" if recipe.train_size else ""
    seeds = f"{search.seeds} seeds" if search.seeds > 1 else "one seed"
    judged = "the validation images"
    if recipe.is_in_memory:
        judged = f"{100 * recipe.validation:g} % of the training images"
    return (
        f"## {recipe.model} on {recipe.data}{size}, {_epochs(recipe.epochs)}, {search.tuner}"
        f" search, {seeds} a trial\n\nJudged on {judged}, after the last epoch."
    )


def _table(results: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result["values"]))
    with_p = any("p_value" in result for result in results)
    rows = [
        [
            "trial",
            "validation accuracy, %",
            *(["p, against the best"] if with_p else []),
            *(name.replace("_", " ") for name in names),
            "ended",
        ]
    ]
    rows.append(["---"] * len(rows[0]))
    for result in results:
        values = [result["values"].get(name, "") for name in names]
        shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        p_value = [f"{result['p_value']:.2g}" if "p_value" in result else ""] if with_p else []
        rows.append(
            [result["trial"], accuracy(result.get("scores", [])), *p_value, *shown, _end(result)]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _end(result: dict[str, Any]) -> str:
    if result["status"] == "FAILED":
        return f"failed: {result['error']}".replace("|", "/")
    return {"COMPLETED": "after", "PRUNED": "as poor, after"}[
        result["status"]
    ] + f" {_epochs(result['epochs'])}"


def _epochs(number: int) -> str:
    return f"{number} epoch{'' if number == 1 else 's'}"


def accuracy(fractions: list[float]) -> str:
    """Fractions as percent, mean ± standard deviation."""
    return spread([100 * fraction for fraction in fractions])


def _said(
    search: description.Search, results: list[dict[str, Any]], found: dict[str, Any] | None
) -> str:
    if found is None:
        return "No trial came to its end."
    if search.seeds == 1:
        return (
            "One seed a trial: how much of a difference is noise is not known. Search with several"
            " seeds to know."
        )
    alike = [result["trial"] for result in results if result.get("p_value", 0) >= LEVEL]
    if not alike:
        return (
            f"The best, trial {found['trial']}, differs from every other that came as far (p <"
            f" {LEVEL:g} for each, not corrected for their number)."
        )
    compared = sum("p_value" in result for result in results)
    return (
        f"The best, trial {found['trial']}, is not told apart from {len(alike)} of the {compared}"
        f" others that came as far (p of {LEVEL:g} or more): {', '.join(alike)}. Being the best of"
        " many, its accuracy here is too high."
    )


def _test(concluded: dict[str, Any]) -> str:
    again = f"The same on all training images:\n\n    {concluded['command']}"
    if "test_accuracies" not in concluded:
        return again
    accuracies = concluded["test_accuracies"]
    number = "one seed" if len(accuracies) == 1 else f"{len(accuracies)} seeds"
    return f"Test accuracy of the best: {accuracy(accuracies)} % ({number}). {again}"
