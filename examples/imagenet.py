"""Trains a network on ImageNet, on as many GPUs and machines as there are, as the baseline or with
IC layers.

    python examples/imagenet.py
        ResNet-50 with IC layers, 90 epochs, imagenet2012 of tensorflow-datasets
    python examples/imagenet.py --data /data/ILSVRC2012 --order usual
        a folder with train and val, of TFRecord shards or of synset folders
    python examples/imagenet.py --preset small --model MobileNet --epochs 2
        to see that it works: minutes on a CPU

On several machines, start it on each, with TF_CONFIG set or by `srun`; docs/imagenet.md shows how.
Stopped in any way, also by kill -9 of any worker, it goes on where it was when it is started again.
`keras-ic train --data imagenet2012` does the same with all the choices there are.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_ic import distribution, training


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--data",
        default="imagenet2012",
        help="a set of tensorflow-datasets, or a folder that holds train and val",
    )
    parser.add_argument(
        "--data-dir", help="folder of tensorflow-datasets, ~/tensorflow_datasets if not given"
    )
    parser.add_argument("--preset", choices=["imagenet", "small"], default="imagenet")
    parser.add_argument(
        "--model",
        default="resnet50-v1.5",
        help="resnet50-v1.5, resnet101-v1.5, or a network of keras.applications",
    )
    parser.add_argument("--order", choices=["usual", "ic"], default="ic")
    parser.add_argument(
        "--rate", type=float, default=0.05, help="probability of the IC layers to drop a value"
    )
    parser.add_argument("--epochs", type=int, help="the preset's, if not given")
    parser.add_argument(
        "--batch",
        type=int,
        help="images a step on all devices together; the preset's, if not given",
    )
    parser.add_argument("--image-size", type=int, help="the preset's, if not given")
    parser.add_argument("--strategy", choices=distribution.KINDS, default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/imagenet"))
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)

    names = ("data", "model", "order", "rate", "epochs", "batch", "image_size")
    given = {name: getattr(arguments, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    config = training.preset(arguments.preset, **given)
    strategy = distribution.strategy(arguments.strategy)  # before anything else of TensorFlow
    try:
        record = training.run(config, arguments.out, strategy, arguments.data_dir)
    except (KeyboardInterrupt, distribution.LostPeerError) as stop:
        print(f"stopped, start it again: {stop}", file=sys.stderr)
        return 75
    if record is not None:  # the chief's
        last = record.epochs[-1]
        top5 = f", top-5 {100 * last['val_top5']:.2f} %" if "val_top5" in last else ""
        model = arguments.out / "model.keras"
        print(f"top-1 {100 * last['val_accuracy']:.2f} %{top5}; {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
