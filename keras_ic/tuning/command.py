"""The verb `tune` of the command line."""

import argparse
import json
import pathlib
import sys

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
VALIDATION = 0.1  # the share of the training images that trials are judged on


def add(verbs) -> None:
    """Adds the verb to a parser's."""
    what = "search dropout rates and what goes with them with Keras Tuner, or go on with a search"
    tune = verbs.add_parser("tune", help=what, description=what)
    space = SearchSpace()
    add_fields(tune, SHARED, is_grid=False)
    tune.add_argument(
        "--tuner",
        default="bayesian",
        metavar="NAME",
        help=f"{', '.join(TUNERS)} (default: %(default)s)",
    )
    tune.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="how many at most (default: %(default)s)",
    )
    tune.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="runs of each trial, whose mean is its score (default: %(default)s)",
    )
    tune.add_argument(
        "--prune",
        action="store_true",
        help="stop a trial whose best epoch is below the median of the means of the others so far",
    )
    tune.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help=(
            "processes beside this one that share the trials, renewed now and then for their"
            " memory; 0: this one alone (default: 1)"
        ),
    )
    searched = {
        "order": (str, "orders", f"{', '.join((*ORDERS, *ALIASES))}; several are searched"),
        "rate": (float, "rate", "the IC layers' rate, or the lowest and the highest"),
        "rate_depth": (str, "depths", f"{', '.join(DEPTHS)}: of the rate over the depth"),
        "rate_schedule": (
            str,
            "rate_schedules",
            f"{', '.join(RATE_SCHEDULES)}: of the rate over the epochs",
        ),
        "learning_rate": (
            float,
            "learning_rate",
            "the largest of the schedule, or the lowest and the highest such",
        ),
        "schedule": (str, "schedules", f"{', '.join(SCHEDULES)}: of the learning rate"),
    }
    for name, (kind, field, text) in searched.items():
        default = list(getattr(space, field))
        shown = " ".join(map(str, default))
        tune.add_argument(
            f"--{name.replace('_', '-')}",
            dest=field,
            type=kind,
            nargs="+",
            default=default,
            help=f"{text} (default: {shown})",
        )
    tune.add_argument(
        "--rate-step",
        type=float,
        default=space.rate_step,
        help="what the candidates of a rate are apart (default: %(default)s)",
    )
    tune.add_argument(
        "--stages",
        type=int,
        default=space.stages,
        help="parts of the depth with a rate each, for the depth stages (default: %(default)s)",
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
    from keras_ic.tuning.reporting import TABLE
    from keras_ic.tuning.searching import prepare, search

    fields = (
        "orders",
        "rate",
        "rate_step",
        "depths",
        "stages",
        "rate_schedules",
        "learning_rate",
        "schedules",
    )
    space = SearchSpace(**{name: getattr(arguments, name) for name in fields})
    shared = {name: value for name, value in given(arguments).items() if name in SHARED}
    data = shared.pop("data", TrainingConfig.data)
    if data in IN_MEMORY:
        shared = {"validation": VALIDATION, **shared}
    configuration = preset_of(data, **shared)
    options = {
        name: getattr(arguments, name)
        for name in ("tuner", "trials", "seeds", "prune", "workers", "data_dir")
    }
    if arguments.dry_run:
        what = Search(
            configuration,
            space,
            arguments.tuner,
            arguments.trials,
            arguments.seeds,
            arguments.prune,
        )
        print(f"{arguments.out}: {json.dumps(prepare(what, arguments.data_dir).to_dict())}")
        return 0
    with stopped_by_signals():
        try:
            found = search(configuration, arguments.out, space, **options)
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
            f" {folder / 'trials.jsonl'} and the figures beside them"
        )
    return 0
