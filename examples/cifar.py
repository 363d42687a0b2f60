"""Trains a CIFAR network as the baseline and with IC layers, some seeds each, and compares them.

    python examples/cifar.py      # ResNet-20 on CIFAR-10, 200 epochs, one seed: hours without a GPU
    python examples/cifar.py --epochs 20 --seeds 3 --data cifar100
    python examples/cifar.py --data digits --model small --epochs 10   # seconds, nothing to fetch

Each run has a folder in `--out`, with `record.jsonl` and `model.keras`. A run that was stopped,
also by kill -9, goes on when the same command is given again, and comes to the same numbers. At the
end, `--out`/report holds a table and figures. `keras-ic train` and `keras-ic report` do the same
with all the choices there are.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_ic import training


def main(argv=None):
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
        help="small, resnetN, vgg16, densenetN or a network of keras.applications",
    )
    parser.add_argument(
        "--rate", type=float, default=0.05, help="probability of the IC layers to drop a value"
    )
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each order")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar"))
    arguments = parser.parse_args(argv)
    runs = training.grid(
        data=arguments.data,
        model=arguments.model,
        order=["usual", "ic"],
        rate=arguments.rate,
        epochs=arguments.epochs,
        seed=range(arguments.seeds),
    )
    folders = [arguments.out / config.name for config in runs]
    for config, folder in zip(runs, folders, strict=True):
        print(config.name, flush=True)
        training.run(config, folder, arguments.data_dir)
    training.report(folders, arguments.out / "report")
    print((arguments.out / "report" / "table.md").read_text())


if __name__ == "__main__":
    main()
