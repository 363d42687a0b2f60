"""The verb `train` of the command line, for digits, CIFAR and ImageNet."""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable

from keras_ic import data
from keras_ic.experiments.arguments import HELP, described
from keras_ic.experiments.configuration import CHOICES, Configuration, grid
from keras_ic.experiments.networks import network
from keras_ic.experiments.running import run
from keras_ic.experiments.stopping import STOPPED, stopped_by_signals
from keras_ic.imagenet import command as imagenet
from keras_ic.utils.validation import did_you_mean


def add(verbs) -> None:
    """Adds the verb to a parser's."""
    what = (
        "train a network, or resume its training; several values of an argument make a grid of"
        " runs, each in a folder of its own"
    )
    train = verbs.add_parser("train", help=what, description=what)
    for field in dataclasses.fields(Configuration):
        if field.name not in HELP:
            continue
        kinds: dict[str, Callable] = {
            "float": float,
            "int": int,
            "int | None": int,
            "tuple[float, ...] | None": _rates,
        }
        kind = kinds.get(str(getattr(field.type, "__name__", field.type)), str)
        shown = {"train_size": "all of them", "image_size": "as they are", "rates": "none"}.get(
            field.name, field.default
        )
        more = (
            "; or imagenet2012, or a folder that holds train and val"
            if field.name == "data"
            else ""
        )
        text = f"{described(field.name)}{more} (default: {shown})"
        metavar = {int: "N", float: "X", str: "NAME", _rates: "X,X"}[kind]
        name = f"--{field.name.replace('_', '-')}"
        train.add_argument(
            name,
            type=kind,
            nargs="+",
            default=[field.default],
            metavar=metavar,
            help=text,
            action=_Given,
        )
    imagenet.add(train, _Given)
    for name, text in (
        ("--no-augment", "no flips and crops"),
        ("--keep-batch-norm", "a BatchNormalization behind each convolution beside the IC layers"),
        ("--recalibrate", "estimate the moving statistics anew at the end"),
    ):
        train.add_argument(
            name,
            action=_Given,
            nargs=0,
            const=True,
            default=False,
            help=f"{text} (digits and CIFAR alone)",
        )
    train.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow-datasets (default: its own, ~/tensorflow_datasets)",
    )
    train.add_argument(
        "--out",
        metavar="DIR",
        help=(
            "folder of the run, or of the folders of a grid (default: runs/ and a name for each"
            " run)"
        ),
    )
    train.add_argument(
        "--dry-run", action="store_true", help="say what would be run, and run nothing"
    )
    train.set_defaults(run=_train, given=())


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


class _Given(argparse.Action):
    """Stores the value, and notes that it was given: defaults follow the data."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, self.const if self.nargs == 0 else values)
        namespace.given = (*namespace.given, self.dest)


def _train(arguments: argparse.Namespace) -> int:
    if (
        len(arguments.data) == 1
        and arguments.data[0] not in CHOICES["data"]
        and _is_imagenet(arguments.data[0])
    ):
        return imagenet.train(arguments)
    for name in arguments.data:
        if name not in CHOICES["data"]:
            alone = " (the last two are trained alone, not in a grid)."
            end = (
                alone
                if _is_imagenet(name)
                else did_you_mean(name, [*CHOICES["data"], "imagenet2012"])
            )
            raise ValueError(
                f"`--data` must be one of {', '.join(CHOICES['data'])}, imagenet2012, or a folder"
                f" of images{end} Received: {name!r}"
            )
    for name in arguments.given:
        if name in (*imagenet.OWN, *imagenet.OF_RUN):
            raise ValueError(
                "This argument is for imagenet2012 and folders of images alone. Received:"
                f" --{name.replace('_', '-')} with --data {arguments.data[0]}"
            )
    values = {name: getattr(arguments, name) for name in HELP}
    values["augment"] = False if arguments.no_augment else None
    runs = grid(
        **values, keep_batch_norm=arguments.keep_batch_norm, recalibrate=arguments.recalibrate
    )
    # Every name, before anything is trained.
    for configuration in dict.fromkeys(dataclasses.replace(each, seed=0) for each in runs):
        network(configuration, data.SHAPES[configuration.data], data.CLASSES[configuration.data])
    failed = []
    with stopped_by_signals() as stop:
        for configuration in runs:
            folder = pathlib.Path(arguments.out or "runs")
            if arguments.out is None or len(runs) > 1:
                folder = folder / configuration.name
            if arguments.dry_run:
                print(f"{folder}: {json.dumps(configuration.to_dict())}")
                continue
            print(f"{configuration.name} into {folder}", flush=True)
            try:
                record = run(configuration, folder, arguments.data_dir, [stop])
            except KeyboardInterrupt:
                print(
                    "keras-ic train: stopped; the same command resumes after the last whole epoch"
                    f" of {folder}",
                    file=sys.stderr,
                )
                return STOPPED
            except ValueError as error:
                if len(runs) == 1:
                    raise
                failed.append(f"{folder}: {' '.join(str(error).split())}")
                continue
            judged = "validation" if configuration.validation else "test"
            accuracy = 100 * record.values("val_accuracy")[-1]
            print(
                f"{judged} accuracy {accuracy:.2f} % after epoch {configuration.epochs};"
                f" {folder / 'model.keras'}",
                flush=True,
            )
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(runs)} runs failed, the others are done: {'; '.join(failed)}"
        )
    return 0


def _is_imagenet(data: str) -> bool:
    """Whether it is a folder, or the name of a set of tensorflow-datasets that is not one of those
    that fit into memory.
    """
    return data == "imagenet2012" or os.sep in data or pathlib.Path(data).is_dir()
