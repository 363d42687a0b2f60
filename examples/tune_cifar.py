"""Searches the dropout rates of an IC network, then the learning rate of its baseline, and compares
the two that were found.

    python examples/tune_cifar.py
    python examples/tune_cifar.py --train-size 10000 --epochs 10 --trials 12 --model small
    python examples/tune_cifar.py --data digits --model small --epochs 5 --trials 6 --seeds 2

The first is ResNet-20 on CIFAR-10, 20 epochs a run: days without a GPU. The second takes an hour or
two without one, the third a minute or two, with nothing to download.

Both searches get the same number of trials, of seeds for each and of epochs, and are judged on a
tenth of the training images; the test set is read once, at the end, for the best of each. A search
that was stopped, also by kill -9, goes on when the same command is given again. Each leaves its
record and table in a folder of `--out`. `keras-ic tune` does one such search, with all the
choices there are.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_ic import tuning
from keras_ic.training import TrainingConfig
from keras_ic.tuning.reporting import accuracy


def parsed(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", choices=["cifar10", "cifar100", "digits"], default="cifar10")
    parser.add_argument(
        "--data-dir", help="folder of tensorflow-datasets, ~/tensorflow_datasets if not given"
    )
    parser.add_argument(
        "--model",
        default="resnet20",
        help="resnetN, vgg16, densenetN, small or a network of keras.applications",
    )
    parser.add_argument(
        "--train-size", type=int, help="take the first images alone, all of them if not given"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=20, help="of each search")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each trial")
    parser.add_argument(
        "--tuner", choices=["random", "bayesian", "hyperband", "grid"], default="bayesian"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes beside this one that share the trials"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tune_cifar"))
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parsed(argv)
    recipe = TrainingConfig(
        data=arguments.data,
        model=arguments.model,
        train_size=arguments.train_size,
        epochs=arguments.epochs,
        schedule="one-cycle",
        validation=0.1,
    )
    found = {}
    for order in ("conv-bn-relu", "relu-ic-conv"):
        print(f"{order} into {arguments.out / order}", flush=True)
        found[order] = tuning.search(
            recipe,
            arguments.out / order,
            tuning.SearchSpace(orders=order, schedules="one-cycle"),
            tuner=arguments.tuner,
            trials=arguments.trials,
            seeds=arguments.seeds,
            workers=arguments.workers,
            data_dir=arguments.data_dir,
        )
    for order, best in found.items():
        print(
            f"{order}: {accuracy(best['test_accuracies'])} % of the test images, with"
            f" {best['values']}"
        )
        print(f"    {best['command']}")


if __name__ == "__main__":
    main()
