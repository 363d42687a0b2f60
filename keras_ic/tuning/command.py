"""The verb `tune` of the command line."""

import argparse
import json
import pathlib
import sys
from typing import Any

from keras_ic.applications.orders import ALIASES, ORDERS
from keras_ic.training.arguments import add_fields, given
from keras_ic.training.config import IN_MEMORY, RATE_SCHEDULES, SCHEDULES, TrainingConfig
from keras_ic.training.presets import preset_of
from keras_ic.training.stopping import stopped_by_signals
from keras_ic.tuning.description import TUNERS, Search
from keras_ic.tuning.space import DEPTHS, SearchSpace
from keras_ic.utils.exit_codes import ExitCode

# Fields of the recipe that all trials share.
SHARED = (
    "data",
    "model",
    "epochs",
    "batch",
    "seed",
    "train_size",
    "image_size",
    "augment",
    "optimizer",
    "weight_decay",
    "decoupled_weight_decay",
    "label_smoothing",
    "linear_scaling",
    "warmup_epochs",
    "ema",
    "momentum",
    "classifier_ic",
    "recalibrate",
    "dtype",
    "validation",
)
VALIDATION = 0.1  # the part of the training images that trials are judged on
# Of the search: its default and what it is.
SEARCH: dict[str, tuple[Any, str]] = {
    "tuner": ("bayesian", ", ".join(TUNERS)),
    "trials": (20, "how many at most"),
    "seeds": (1, "runs of each trial, whose mean is its score"),
    "workers": (
        1,
        "processes beside this one that share the trials, renewed now and then for their memory;"
        " 0: this one alone",
    ),
}
# Of the space: the option, its type and what it is.
SPACE: dict[str, tuple[str, type, str]] = {
    "orders": ("order", str, f"{', '.join((*ORDERS, *ALIASES))}; several are searched"),
    "rate": ("rate", float, "the IC layers' rate, or the lowest and the highest"),
    "depths": ("rate-depth", str, f"{', '.join(DEPTHS)}: of the rate over the depth"),
    "rate_schedules": (
        "rate-schedule",
        str,
        f"{', '.join(RATE_SCHEDULES)}: of the rate over the epochs",
    ),
    "learning_rate": (
        "learning-rate",
        float,
        "the largest of the schedule, or the lowest and the highest such",
    ),
    "schedules": ("schedule", str, f"{', '.join(SCHEDULES)}: of the learning rate"),
    "rate_step": ("rate-step", float, "what the candidates of a rate are apart"),
    "stages": ("stages", int, "parts of the depth with a rate each, for the depth stages"),
}


def add(verbs: Any) -> None:
    """Adds the verb to a parser's."""
    what = "search dropout rates and what goes with them with Keras Tuner, or go on with a search"
    tune = verbs.add_parser("tune", help=what, description=what)
    add_fields(tune, SHARED, is_grid=False)
    for name, (default, text) in SEARCH.items():
        metavar = "N" if isinstance(default, int) else "NAME"
        text += " (default: %(default)s)"
        tune.add_argument(
            f"--{name}", type=type(default), default=default, metavar=metavar, help=text
        )
    tune.add_argument(
        "--prune",
        action="store_true",
        help="stop a trial whose best epoch is below the median of the means of the others so far",
    )
    for field, (option, kind, text) in SPACE.items():
        default = getattr(SearchSpace(), field)
        several = {"nargs": "+"} if isinstance(default, tuple) else {}
        shown = " ".join(map(str, default)) if several else default
        tune.add_argument(
            f"--{option}",
            dest=field,
            type=kind,
            default=default,
            help=f"{text} (default: {shown})",
            **several,
        )
    tune.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow-datasets (default: its own, ~/tensorflow_datasets)",
    )
    tune.add_argument("--out", metavar="DIR", required=True, help="folder of the search")
    tune.add_argument(
        "--dry-run", action="store_true", help="say what would be searched, and search nothing"
    )
    tune.set_defaults(run=_tune)


def _tune(arguments: argparse.Namespace) -> int:
    # These make classes of Keras Tuner's.
    from keras_ic.tuning.reporting import TABLE
    from keras_ic.tuning.searching import prepare, search

    space = SearchSpace(**{name: getattr(arguments, name) for name in SPACE})
    recipe = _recipe(given(arguments))
    if arguments.dry_run:
        of_search = ("tuner", "trials", "seeds", "prune")
        what = Search(recipe, space, **{name: getattr(arguments, name) for name in of_search})
        print(f"{arguments.out}: {json.dumps(prepare(what, arguments.data_dir).to_dict())}")
        return ExitCode.DONE
    options = {name: getattr(arguments, name) for name in (*SEARCH, "prune", "data_dir")}
    with stopped_by_signals():
        try:
            found = search(recipe, arguments.out, space, **options)
        except KeyboardInterrupt:
            print(
                "keras-ic tune: stopped; the same command goes on with the search in"
                f" {arguments.out}",
                file=sys.stderr,
            )
            return ExitCode.STOPPED
    if found:
        folder = pathlib.Path(arguments.out)
        print((folder / TABLE).read_text(encoding="utf-8"))
        print(
            f"best: {json.dumps(found['values'])}; {folder / 'best.keras'},"
            f" {folder / 'trials.jsonl'} and the table beside them"
        )
    return ExitCode.DONE


def _recipe(values: dict[str, Any]) -> TrainingConfig:
    shared = {name: value for name, value in values.items() if name in SHARED}
    data = shared.pop("data", TrainingConfig.data)
    if data in IN_MEMORY:
        shared = {"validation": VALIDATION, **shared}
    return preset_of(data, **shared)
