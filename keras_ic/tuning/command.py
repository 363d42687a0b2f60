"""The verb `tune` of the command line."""

import argparse
import json
import pathlib
import sys

from keras_ic.experiments.arguments import described
from keras_ic.experiments.configuration import CHOICES, Configuration
from keras_ic.experiments.stopping import STOPPED, stopped_by_signals
from keras_ic.tuning.description import TUNERS, Search
from keras_ic.tuning.space import DEPTHS, SearchSpace

# Arguments of the recipe that all trials share.
SHARED = {
    "data": str,
    "model": str,
    "epochs": int,
    "batch": int,
    "seed": int,
    "train_size": int,
    "image_size": int,
    "optimizer": str,
    "weight_decay": float,
    "decoupled_weight_decay": float,
    "dtype": str,
}


def add(verbs) -> None:
    """Adds the verb to a parser's."""
    what = "search dropout rates and what goes with them with Keras Tuner, or go on with a search"
    tune = verbs.add_parser("tune", help=what, description=what)
    defaults, space = Configuration(), SearchSpace()
    for name, kind in SHARED.items():
        default = getattr(defaults, name)
        shown = {"train_size": "all of them", "image_size": "as they are"}.get(name, default)
        tune.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            help=f"{described(name)} (default: {shown})",
        )
    tune.add_argument("--no-augment", action="store_true", help="no flips and crops")
    tune.add_argument(
        "--validation",
        type=float,
        default=0.1,
        help="share of the training images that trials are judged on (default: %(default)s)",
    )
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
        help="stop a trial whose best epoch is below the median of the others' means so far",
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
        "order": (str, "orders", f"{', '.join(CHOICES['order'])}; several are searched"),
        "rate": (float, "rate", "the IC layers' rate, or the lowest and the highest"),
        "rate_depth": (str, "depths", f"{', '.join(DEPTHS)}: of the rate over the depth"),
        "rate_schedule": (
            str,
            "rate_schedules",
            f"{', '.join(CHOICES['rate_schedule'])}: of the rate over the epochs",
        ),
        "learning_rate": (
            float,
            "learning_rate",
            "the largest of the schedule, or the lowest and the highest such",
        ),
        "schedule": (str, "schedules", f"{', '.join(CHOICES['schedule'])}: of the learning rate"),
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
    from keras_ic.tuning.searching import check_networks, search

    recipe = {name: getattr(arguments, name) for name in (*SHARED, "validation")}
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
    configuration = Configuration(**recipe, augment=False if arguments.no_augment else None)
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
        check_networks(what)
        print(f"{arguments.out}: {json.dumps(what.to_dict())}")
        return 0
    with stopped_by_signals() as stop:
        try:
            found = search(configuration, arguments.out, space, **options, callbacks=[stop])
        except KeyboardInterrupt:
            print(
                "keras-ic tune: stopped; the same command goes on with the search in"
                f" {arguments.out}",
                file=sys.stderr,
            )
            return STOPPED
    if found:
        folder = pathlib.Path(arguments.out)
        print((folder / TABLE).read_text(encoding="utf-8"))
        print(
            f"best: {json.dumps(found['values'])}; {folder / 'best.keras'},"
            f" {folder / 'trials.jsonl'} and the figures beside them"
        )
    return 0
