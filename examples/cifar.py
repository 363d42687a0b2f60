"""Trains a CIFAR ResNet on images from tensorflow-datasets, in the usual order of layers or with IC layers.

    python examples/cifar.py --model resnet20 --order ic --epochs 200
    python examples/cifar.py --model resnet20 --order usual --epochs 200

The recipe: Adam at 1e-3, a tenth of it after 40 %, 60 % and 80 % of the steps, batches of 64, an L2 penalty of 1e-4 on kernels, flips and crops
after padding by 4 pixels, and standardized channels. `--epochs` stretches or shrinks all of it.

In the folder `--out` it leaves `record.jsonl` (configuration and versions, then one line an epoch) and, at the end, `model.keras`. A run that was
stopped, also by kill -9, goes on after its last whole epoch when the same command is given again, and comes to the same numbers: on a CPU to the
last bit; on a GPU as nearly as two unbroken runs agree, unless `tf.config.experimental.enable_op_determinism()` makes TensorFlow exact there.
"""

import argparse
import importlib
import json
import math
import os
import platform
import re
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ic
from keras_ic import data, files
from keras_ic.applications import ResNet

LEARNING_RATES = [1e-3, 1e-4, 1e-5, 1e-6]
DROPS = [0.4, 0.6, 0.8]  # when the next rate begins, as a share of all steps
WEIGHT_DECAY = 1e-4
TEST_BATCH = 250


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help lists the arguments)\n")


def parse(argv):
    def count(text):
        if not text.isdecimal() or int(text) == 0:
            raise argparse.ArgumentTypeError(f"must be an integer above 0. Received: {text!r}")
        return int(text)

    def resnet(text):
        if not re.fullmatch(r"resnet\d+", text):
            raise argparse.ArgumentTypeError(f"must be resnet and its depth, as resnet20, resnet56 or resnet164. Received: {text!r}")
        return text

    parser = OneLineParser(prog="cifar.py", description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data-dir", help="folder of tensorflow-datasets; the default is its own, ~/tensorflow_datasets")
    parser.add_argument("--dataset", choices=["cifar10", "cifar100"], default="cifar10")
    parser.add_argument("--model", type=resnet, default="resnet20", help="resnetN, of depth N = 6n+2 or 9n+2")
    parser.add_argument("--order", choices=["usual", "ic", "relu-ic-conv", "ic-conv-relu", "conv-relu-ic"], default="ic", help="ic is relu-ic-conv")
    parser.add_argument("--rate", type=float, default=0.05, help="probability of the ICs to drop a value")
    parser.add_argument("--epochs", type=count, default=200)
    parser.add_argument("--batch", type=count, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-size", type=count, help="train on the first N images only")
    parser.add_argument("--out", type=Path, help="folder of the run; the default is in runs/cifar and named after the arguments")
    arguments = parser.parse_args(argv)
    if arguments.order == "ic":
        arguments.order = "relu-ic-conv"
    return arguments


def describe(arguments):
    """What makes two runs the same run; where the data and the results lie does not matter."""
    names = ("dataset", "model", "order", "rate", "epochs", "batch", "train_size")
    recipe = {"learning_rates": LEARNING_RATES, "drops": DROPS, "weight_decay": WEIGHT_DECAY}
    return {**{name: getattr(arguments, name) for name in names}, **recipe}


def versions():
    backend = keras.backend.backend()
    numbers = {"keras_ic": keras_ic.__version__, "keras": keras.__version__, "numpy": np.__version__, "python": platform.python_version()}
    return {**numbers, backend: importlib.import_module(backend).__version__}


class Run:
    """The folder of one run. A checkpoint says itself how far it is; lines of the record beyond it are of an epoch that will be run again."""

    def __init__(self, folder, configuration, seed):
        self.folder, self.record = folder, folder / "record.jsonl"
        self.checkpoint, self.final = folder / "checkpoint.keras", folder / "model.keras"
        self.head = {"configuration": configuration, "seed": seed, "versions": versions()}
        if not self.record.exists():
            if self.checkpoint.exists() or self.final.exists():
                raise ValueError(f"there is a model in {folder}, but not the record of its run; choose another --out. Received: --out {folder}")
            return
        head = self.lines(1)[0]
        was, now = ({**each.get("configuration", {}), "seed": each.get("seed")} for each in (head, self.head))
        if was != now:
            differences = ", ".join(f"{name} {was.get(name)} there, {now.get(name)} here" for name in now if was.get(name) != now.get(name))
            raise ValueError(f"{folder} holds another run ({differences}); choose another --out. Received: --out {folder}")
        if head["versions"] != self.head["versions"]:
            print(f"This run was begun with other versions, {head['versions']}: its numbers may differ from an unbroken run's.")

    def lines(self, count):
        """The first lines of the record, each whole and in its place."""
        try:
            lines = [json.loads(line) for line in self.record.read_text().splitlines()[:count]]
            whole = len(lines) == count and "versions" in lines[0] and [line["epoch"] for line in lines[1:]] == list(range(1, count))
        except (ValueError, TypeError, KeyError, IndexError):
            whole = False
        if not whole:
            raise ValueError(f"{self.record} is damaged; choose another --out, or delete the folder to start again. Received: --out {self.folder}")
        return lines

    def begin(self, model, steps):
        """The model to train, and how many epochs of it are done."""
        done = 0
        if self.checkpoint.exists():
            model = files.load_model(self.checkpoint)
            done = int(model.optimizer.iterations) // steps
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = self.lines(1 + done) if self.record.exists() else [self.head]
        with files.replacing(self.record) as new:
            new.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return model, done


class Keep(keras.callbacks.Callback):
    """After each epoch, its line in the record first, then the checkpoint, which makes the epoch count."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        line = {"epoch": epoch + 1, **{name: logs[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}}
        line["seconds"] = round(time.perf_counter() - self.start, 3)
        with open(self.run.record, "a") as record:
            record.write(json.dumps(line) + "\n")
            record.flush()
            os.fsync(record.fileno())
        files.save_model(self.model, self.run.checkpoint)


def prepare(arguments):
    """All that can fail for a reason that the user can mend; returns the run, its model, how many epochs are done, and the arguments of `fit`."""
    model = ResNet(
        int(arguments.model.removeprefix("resnet")),
        order=arguments.order,
        rate=arguments.rate,
        classes=data.CLASSES[arguments.dataset],
        weight_decay=WEIGHT_DECAY,
        seed=arguments.seed,
    )
    name = "-".join(f"{value}" for value in (arguments.dataset, arguments.model, arguments.order, arguments.rate, f"seed{arguments.seed}"))
    run = Run(arguments.out or Path("runs", "cifar", f"{name}-{arguments.epochs}epochs"), describe(arguments), arguments.seed)
    if run.final.exists():
        run.lines(1 + arguments.epochs)  # that the record is whole
        return run, None, arguments.epochs, {}

    (x, y), test = getattr(data, arguments.dataset)(arguments.data_dir)
    if arguments.train_size:
        if arguments.train_size > len(x):
            raise ValueError(f"--train-size must be at most {len(x)}, the number of training images. Received: --train-size {arguments.train_size}")
        x, y = x[: arguments.train_size], y[: arguments.train_size]
    steps = math.ceil(len(x) / arguments.batch)
    boundaries = [round(share * steps * arguments.epochs) - 1 for share in DROPS]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, LEARNING_RATES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model, done = run.begin(model, steps)
    left = arguments.epochs - done
    if not left:
        return run, model, done, {}
    statistics = data.channel_statistics(x)
    training = data.training_dataset(x, y, arguments.batch, *statistics, seed=arguments.seed, epoch=done, epochs=left)
    validation = data.test_dataset(*test, TEST_BATCH, *statistics)
    return run, model, done, {"x": training, "steps_per_epoch": steps, "validation_data": validation}


def main(argv=None):
    arguments = parse(argv)
    try:
        run, model, done, inputs = prepare(arguments)
    except (ValueError, ImportError, OSError, data.MissingDataError) as error:
        print(f"cifar.py: {error}", file=sys.stderr)
        return 2
    if inputs:
        print(f"{arguments.model}, {arguments.order}: epochs {done + 1} to {arguments.epochs} into {run.folder}", flush=True)
        verbose = 1 if sys.stdout.isatty() else 2
        try:
            # The data come shuffled.
            model.fit(**inputs, shuffle=False, initial_epoch=done, epochs=arguments.epochs, callbacks=[Keep(run)], verbose=verbose)
        except KeyboardInterrupt:
            print("\ncifar.py: stopped; the same command goes on after the last whole epoch", file=sys.stderr)
            return 75
    if run.checkpoint.exists():
        os.replace(run.checkpoint, run.final)
    print(f"Test accuracy {run.lines(1 + arguments.epochs)[-1]['val_accuracy']:.4f} after {arguments.epochs} epochs; the model is {run.final}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
