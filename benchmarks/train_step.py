"""What a whole training step costs in the IC order beside the baseline in stock Keras, and how
much of it is waiting for images.

    python benchmarks/train_step.py --out benchmarks/results

ResNet-20 on CIFAR's shapes, batch 64, as `keras_ic.applications` builds it, and ResNet-50 at 224
pixels, batch 8, as `keras.applications` builds it and as `keras_ic.rewrite` makes its IC form.
Adam, float32, `train_on_batch` on one batch of noise. The networks take turns in one process;
figures are medians, and the fastest of all turns, which comes nearest to a machine that does
nothing else. The waiting is the share of a step of `fit` that goes away when the same batch comes
again and again instead of the augmented images.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ic
from keras_ic.applications import ResNet
from keras_ic.training import datasets

BACKEND = keras.backend.backend()
RATE = 0.05


def resnet20():
    """By name, the network in its forms, and its batch."""
    orders = {
        "usual": {"order": "usual"},
        "IC": {"order": "ic", "rate": RATE},
        "IC, rate 0": {"order": "ic", "rate": 0.0},
    }
    return {name: ResNet(20, seed=0, **values) for name, values in orders.items()}, (64, 32, 32, 3)


def resnet50():
    """By name, the network in its forms, and its batch."""
    usual = keras.applications.ResNet50(
        weights=None, input_shape=(224, 224, 3), classes=10, classifier_activation=None
    )
    return {
        "usual": usual,
        "IC": keras_ic.rewrite(usual, RATE),
        "IC, rate 0": keras_ic.rewrite(usual, 0.0),
    }, (8, 224, 224, 3)


NETWORKS = {"ResNet-20": resnet20, "ResNet-50": resnet50}


def seconds(steps, repeats):
    """The times of each step; the steps take turns."""
    times = {name: [] for name in steps}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if repeat > 1:  # the first two compile
                times[name].append(time.perf_counter() - begin)
    return times


def compare(name, repeats):
    """The times of a network's forms."""
    models, shape = NETWORKS[name]()
    random = np.random.default_rng(0)
    x, y = random.normal(size=shape).astype("float32"), random.integers(0, 10, shape[0])
    for model in models.values():
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    steps = {form: lambda model=model: model.train_on_batch(x, y) for form, model in models.items()}
    times = seconds(steps, repeats)
    row = {"network": name, "batch": shape}
    for what, of in (("median", statistics.median), ("fastest", min)):
        took = {form: of(values) for form, values in times.items()}
        row[what] = {form: round(1000 * value, 2) for form, value in took.items()}
        row[f"{what} / usual"] = {
            form: round(value / took["usual"], 3) for form, value in took.items()
        }
    return row


def waiting(repeats):
    """The share of a step of ResNet-20 that is spent waiting for images; on TensorFlow alone, whose
    `fit` reads within the compiled step.
    """
    import tensorflow as tf

    x = np.random.default_rng(0).integers(0, 256, (64 * 200, 32, 32, 3)).astype("uint8")
    y = np.zeros(len(x), "int64")
    images = datasets.training_dataset(x, y, 64, *datasets.channel_statistics(x), epochs=1000)
    batch = next(iter(images))
    model = ResNet(20, seed=0)
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.train_on_batch(*batch)
    function = model.make_train_function()
    iterators = {
        "augmented": iter(images),
        "the same batch": iter(tf.data.Dataset.from_tensors(batch).repeat()),
    }
    times = seconds(
        {
            name: lambda iterator=iterator: function(iterator)
            for name, iterator in iterators.items()
        },
        repeats,
    )
    took = {name: statistics.median(values) for name, values in times.items()}
    share = 1 - took["the same batch"] / took["augmented"]
    return {
        "milliseconds": {name: round(1000 * value, 2) for name, value in took.items()},
        "waiting": round(share, 3),
    }


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--out", type=Path, help="folder for train-step-BACKEND.json")
    arguments = parser.parse_args(argv)
    result = {"rows": []}
    print(
        "| network, batch | | usual, ms | IC, ms | IC, rate 0, ms | IC / usual | IC, rate 0 / usual"
        " |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name in arguments.networks:
        row = compare(name, arguments.repeats)
        result["rows"].append(row)
        for what in ("median", "fastest"):
            times = " | ".join(f"{row[what][form]:.1f}" for form in ("usual", "IC", "IC, rate 0"))
            ratios = row[f"{what} / usual"]
            print(
                f"| {name}, {row['batch'][0]} | {what} | {times} | {ratios['IC']:.2f} |"
                f" {ratios['IC, rate 0']:.2f} |",
                flush=True,
            )
        keras.backend.clear_session()
    if BACKEND == "tensorflow":
        result["waiting"] = waiting(arguments.repeats)
        print(
            f"Waiting for images: {100 * result['waiting']['waiting']:.1f} % of a step of ResNet-20"
        )
    if arguments.out:
        library = __import__(BACKEND)
        versions = {
            "keras_ic": keras_ic.__version__,
            "keras": keras.__version__,
            BACKEND: library.__version__,
            "python": platform.python_version(),
        }
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"train-step-{BACKEND}.json"
        path.write_text(
            json.dumps({"versions": versions, "machine": machine, **result}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
