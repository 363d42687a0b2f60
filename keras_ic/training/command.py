"""The verb `train` of the command line."""

import argparse
import json
import pathlib
import sys
from typing import Any

import keras

from keras_ic import distribution
from keras_ic.distribution import jax_devices
from keras_ic.distribution.agreement import number_of_replicas
from keras_ic.training.arguments import add_fields, given
from keras_ic.training.config import TrainingConfig, grid
from keras_ic.training.datasets import CLASSES, SHAPES
from keras_ic.training.dry_run import describe
from keras_ic.training.loop import run
from keras_ic.training.networks import network
from keras_ic.training.presets import PRESETS
from keras_ic.training.timing import throughput
from keras_ic.utils.exit_codes import ExitCode


def add(verbs: Any) -> None:
    """Adds the verb to a parser's."""
    what = (
        "train a network, or resume its training; several values of an argument make a grid of"
        " runs, each in a folder of its own"
    )
    train = verbs.add_parser("train", help=what, description=what)
    add_fields(train)
    of_run = train.add_argument_group("how it is run, which does not change what is computed")
    of_run.add_argument(
        "--preset",
        choices=list(PRESETS),
        help="take the values of a preset for what is not given (by default those above; for image"
        " files, imagenet)",
    )
    of_run.add_argument(
        "--strategy",
        choices=distribution.KINDS,
        default="auto",
        help=(
            "devices and machines (default: what TF_CONFIG, SLURM or the GPUs call for; on JAX, one"
            " or all devices)"
        ),
    )
    for name, kind, metavar, default, text in (
        ("checkpoint-steps", int, "N", None, "steps between checkpoints within an epoch"),
        ("peer-timeout", float, "X", 60.0, "seconds after which a silent worker counts as lost"),
        ("data-dir", str, "DIR", None, "folder of tensorflow-datasets (~/tensorflow_datasets)"),
        ("out", str, "DIR", None, "folder of the run or the grid (runs/ and a name for each run)"),
    ):
        shown = "" if default is None else f" (default: {default})"
        of_run.add_argument(
            f"--{name}", type=kind, metavar=metavar, default=default, help=text + shown
        )
    of_run.add_argument(
        "--share-by",
        choices=["auto", "files", "records"],
        default="auto",
        help="how workers share out image files (default: %(default)s)",
    )
    of_run.add_argument(
        "--xla",
        choices=["auto", "on", "off"],
        default="auto",
        help="compile the step by XLA (default: %(default)s)",
    )
    of_run.add_argument(
        "--no-deterministic",
        action="store_true",
        help="take image files in the order in which they are ready; not repeatable",
    )
    of_run.add_argument(
        "--synthetic",
        action="store_true",
        help="time the step on random images, and train nothing",
    )
    of_run.add_argument(
        "--dry-run", action="store_true", help="say what would be run, and run nothing"
    )
    train.set_defaults(run=train_verb)


def train_verb(arguments: argparse.Namespace) -> int:
    """Runs the verb."""
    try:
        return _train(arguments)
    except distribution.LostPeerError as error:
        print(f"keras-ic train: {' '.join(str(error).split())}", file=sys.stderr)
        if keras.backend.backend() == "jax":
            jax_devices.leave(ExitCode.STOPPED)
        return ExitCode.STOPPED


def _train(arguments: argparse.Namespace) -> int:
    runs = grid(arguments.preset, **given(arguments))
    strategy = _strategy(arguments)  # before anything else of TensorFlow
    _check_names(runs)
    failed = []
    for config in runs:
        folder = pathlib.Path(arguments.out or "runs")
        if arguments.out is None or len(runs) > 1:
            folder = folder / config.name
        try:
            _one(config, folder, strategy, arguments)
        except KeyboardInterrupt:
            print(
                f"keras-ic train: stopped; the same command goes on with {folder}", file=sys.stderr
            )
            return ExitCode.STOPPED
        except ValueError as error:
            if len(runs) == 1:
                raise
            failed.append(f"{folder}: {' '.join(str(error).split())}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(runs)} runs failed, the others are done: {'; '.join(failed)}"
        )
    return ExitCode.DONE


def _one(config: TrainingConfig, folder: pathlib.Path, strategy: Any, arguments: Any) -> None:
    jit_compile: bool | str = "auto" if arguments.xla == "auto" else arguments.xla == "on"
    replicas = number_of_replicas(strategy)
    if arguments.dry_run:
        print(f"{folder}: {json.dumps(config.to_dict())}")
        print(describe(config, replicas, arguments.data_dir))
        return
    if arguments.synthetic:
        values = {"replicas": replicas, "batch": config.batch, "model": config.model}
        times = throughput(config, strategy, jit_compile=jit_compile)
        print(json.dumps({**times, **values, "order": config.order}))
        return
    print(f"{config.name} into {folder}", flush=True)
    record = run(
        config,
        folder,
        strategy,
        arguments.data_dir,
        share_by=arguments.share_by,
        checkpoint_steps=arguments.checkpoint_steps,
        deterministic=not arguments.no_deterministic,
        jit_compile=jit_compile,
    )
    if record is not None:
        judged = "validation" if config.validation or not config.is_in_memory else "test"
        accuracy = 100 * record.values("val_accuracy")[-1]
        print(
            f"{judged} accuracy {accuracy:.2f} % after epoch {config.epochs};"
            f" {folder / 'model.keras'}",
            flush=True,
        )


def _check_names(runs: list[TrainingConfig]) -> None:
    """Builds each network, so that a bad name is told before anything is trained."""
    for config in {config.model: config for config in runs}.values():
        if config.is_in_memory:
            network(config, SHAPES[config.data], CLASSES[config.data])
        else:
            network(config, (config.pixels, config.pixels, 3), 10, False)


def _strategy(arguments: argparse.Namespace) -> Any:
    """The strategy that was asked for; None where plain `fit` on one device does."""
    does_without = arguments.strategy in ("auto", "one")
    if does_without and keras.backend.backend() == "torch":
        return None
    strategy = distribution.strategy(arguments.strategy, arguments.peer_timeout)
    alone = number_of_replicas(strategy) == 1 and does_without
    return None if alone else strategy
