"""What `keras-ic train` does with ImageNet, and with folders laid out like it."""

import argparse
import json
import logging
import pathlib
import sys
from typing import Any

from keras_ic import distribution
from keras_ic.experiments.stopping import STOPPED
from keras_ic.imagenet.planning import plan
from keras_ic.imagenet.recipe import RECIPES, Recipe, named
from keras_ic.imagenet.running import run
from keras_ic.imagenet.setting import check_backend
from keras_ic.imagenet.timing import throughput

# Arguments of `keras-ic train` that are for both kinds of data.
SHARED = (
    "model",
    "order",
    "rate",
    "seed",
    "epochs",
    "batch",
    "image_size",
    "learning_rate",
    "weight_decay",
    "dtype",
)
OWN = ("label_smoothing", "warmup_epochs", "ema", "accumulate")
# Of the run, not the recipe.
OF_RUN = (
    "recipe",
    "strategy",
    "synchronized",
    "share_by",
    "backup_steps",
    "peer_timeout",
    "xla",
    "no_deterministic",
    "synthetic",
)


def add(train: argparse.ArgumentParser, action: type[argparse.Action]) -> None:
    """Adds the arguments that are for these data alone; `action` notes which were given."""
    given: dict[str, Any] = {"action": action}
    switch: dict[str, Any] = {"action": action, "nargs": 0, "const": True, "default": False}
    group = train.add_argument_group(
        "ImageNet",
        "for --data imagenet2012, or a folder that holds train and val. The defaults above are"
        " those of digits and CIFAR; here they are the recipe's. --learning-rate is for every 256"
        " images of a batch, and --weight-decay 1e-4 adds half of 1e-4 times the sum of squares.",
    )
    group.add_argument(
        "--recipe",
        **given,
        choices=list(RECIPES),
        default="standard",
        help="values for what is not given (default: %(default)s)",
    )
    group.add_argument(
        "--strategy",
        **given,
        choices=distribution.KINDS,
        default="auto",
        help="devices and machines (default: what TF_CONFIG, SLURM or the GPUs call for)",
    )
    for name, kind, text in (
        ("label-smoothing", float, "share of the target spread over all classes"),
        ("warmup-epochs", int, "epochs in which the learning rate rises"),
        ("ema", float, "momentum of a moving average of the weights"),
        ("accumulate", int, "parts in which a replica's batch goes through the network"),
    ):
        group.add_argument(
            f"--{name}",
            type=kind,
            metavar="X" if kind is float else "N",
            **given,
            help=f"{text} (default: the recipe's)",
        )
    group.add_argument(
        "--synchronized", **switch, help="statistics of a batch over all replicas in every layer"
    )
    group.add_argument(
        "--share-by",
        **given,
        choices=["auto", "files", "records"],
        default="auto",
        help="how workers share out the images (default: %(default)s)",
    )
    group.add_argument(
        "--backup-steps",
        **given,
        type=int,
        default=500,
        metavar="N",
        help="steps from one backup to the next (default: %(default)s)",
    )
    group.add_argument(
        "--peer-timeout",
        **given,
        type=float,
        default=60.0,
        metavar="X",
        help="seconds after which a silent worker counts as lost (default: %(default)s)",
    )
    group.add_argument(
        "--xla",
        **given,
        choices=["auto", "on", "off"],
        default="auto",
        help="compile the step by XLA (default: %(default)s: on GPUs)",
    )
    group.add_argument(
        "--no-deterministic",
        **switch,
        help="take images in the order in which they are ready; not repeatable",
    )
    group.add_argument(
        "--synthetic", **switch, help="time the step on random images, and train nothing"
    )


def train(arguments: argparse.Namespace) -> int:
    """Runs the verb."""
    check_backend()
    recipe = _recipe(arguments)
    logging.basicConfig(level=logging.WARNING, format="keras-ic train: %(message)s")
    xla: bool | str = "auto" if arguments.xla == "auto" else arguments.xla == "on"
    try:
        strategy = distribution.strategy(arguments.strategy, arguments.peer_timeout)
        if arguments.dry_run:
            print(plan(recipe, strategy.num_replicas_in_sync, arguments.data_dir))
            return 0
        if arguments.synthetic:
            result = throughput(recipe, strategy, jit_compile=xla)
            print(
                json.dumps(
                    {
                        **result,
                        "replicas": strategy.num_replicas_in_sync,
                        "batch": recipe.batch,
                        "model": recipe.model,
                        "order": recipe.order,
                    }
                )
            )
            return 0
        out = pathlib.Path(arguments.out) if arguments.out else pathlib.Path("runs", recipe.name)
        lines = run(
            recipe,
            out,
            strategy,
            arguments.data_dir,
            by=arguments.share_by,
            backup_steps=arguments.backup_steps,
            deterministic=not arguments.no_deterministic,
            jit_compile=xla,
            verbose=1 if sys.stdout.isatty() else 2,
        )
    except KeyboardInterrupt:
        print("keras-ic train: stopped; the same command goes on at this step", file=sys.stderr)
        return STOPPED
    except distribution.LostPeerError as error:
        print(f"keras-ic train: {' '.join(str(error).split())}", file=sys.stderr)
        return STOPPED
    if lines:
        last = lines[-1]
        print(
            f"top-1 {100 * last['val_accuracy']:.2f} %, top-5 {100 * last['val_top5']:.2f} % after"
            f" epoch {last['epoch']}; {out / 'model.keras'}",
            flush=True,
        )
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """The named recipe with what was given on the command line."""
    changes = {"data": arguments.data[0], "synchronized": arguments.synchronized}
    for name in arguments.given:
        value = getattr(arguments, name)
        if name in SHARED:
            if len(value) > 1:
                raise ValueError(
                    "Grids are for digits and CIFAR; give one value here. Received:"
                    f" --{name.replace('_', '-')} {' '.join(map(str, value))}"
                )
            changes[name] = value[0]
        elif name in OWN:
            changes[name] = value
        elif name != "data" and name not in OF_RUN:
            raise ValueError(
                f"This argument is for digits and CIFAR alone. Received: --{name.replace('_', '-')}"
                f" with --data {arguments.data[0]}"
            )
    return named(arguments.recipe, **changes)
