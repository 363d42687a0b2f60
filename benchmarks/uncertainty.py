"""What Monte-Carlo prediction costs beside plain prediction: `predict_with_uncertainty` over
`samples` times `predict`, in one process.

    python -m benchmarks.uncertainty [--samples 10] [--repeats 5]

Each turn times both, the first of them in turns. `predict` has been compiled before; the samples
are compiled in each call, which the ratio includes, so that it is largest for little data.
"""

import argparse
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import keras_ic

EXAMPLES = (256, 2048)


def recurrent():
    """A network that runs step by step."""
    return [keras.Input((100, 8)), layers.LSTM(32)]


def convolutional():
    """One that does not."""
    return [
        keras.Input((16, 16, 3)),
        layers.Conv2D(16, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
    ]


def ratio(model, x, samples, repeats):
    """The median over the turns."""

    def plain():
        for _ in range(samples):
            model.predict(x, verbose=0)

    def sampled():
        keras_ic.predict_with_uncertainty(model, x, samples, verbose=0)

    model.predict(x, verbose=0)
    ratios = []
    for turn in range(repeats):
        seconds = {}
        for run in (plain, sampled) if turn % 2 else (sampled, plain):
            begin = time.perf_counter()
            run()
            seconds[run] = time.perf_counter() - begin
        ratios.append(seconds[sampled] / seconds[plain])
    return statistics.median(ratios)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10, help="default: 10")
    parser.add_argument("--repeats", type=int, default=5, help="turns of a row (default: 5)")
    arguments = parser.parse_args(argv)
    print("| network | examples | predict_with_uncertainty / (samples x predict) |")
    print("| --- | --- | --- |")
    for make in (recurrent, convolutional):
        model = keras.Sequential([*make(), keras_ic.IC(0.1), layers.Dense(3)])
        for examples in EXAMPLES:
            x = np.random.default_rng(0).normal(size=(examples, *model.input_shape[1:]))
            found = ratio(model, x.astype("float32"), arguments.samples, arguments.repeats)
            print(f"| {make.__name__} | {examples} | {found:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
