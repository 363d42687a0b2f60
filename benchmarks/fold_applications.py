"""Folds every network of keras.applications, usual and in IC form, and writes a table of what came
out.

    python -m benchmarks.fold_applications [--only NAME ...] [--out table.md]

Each network gets small inputs and the settled statistics of `benchmarks/rewrite_applications.py`;
its IC form is that of `weights="preserve"` with statistics from the data. For both: are any
normalizations left, how far is the function from the given network's in float32, and how long does
`fold` take. "kept" counts what stays in the folded IC form as an addition or an affine a channel,
since nothing can absorb it. In float64, with every parameter and statistic drawn at random, the
difference is the error of the folding alone.
"""

import argparse
import sys

import keras

import keras_ic
from benchmarks.rewrite_applications import (
    build,
    in_float64,
    networks,
    relative_difference,
    sample,
    seconds,
    shown,
)
from tests.surgery.models import batch_normalizations, ics, settle

HEADER = [
    "network",
    "BatchNorm",
    "usual: difference",
    "s",
    "IC",
    "IC: difference",
    "in float64",
    "s",
    "left",
    "kept",
]


def check(name: str) -> list:
    """One row of the table."""
    model = build(name)
    x = sample(model)
    settle(model, x)
    normalizations, usual_difference, usual_seconds = len(batch_normalizations(model)), "", ""
    folded = []
    if normalizations:
        usual_seconds = seconds(lambda: folded.append(keras_ic.fold(model)))
        usual_difference = relative_difference(
            model(x, training=False), folded[0](x, training=False)
        )
    ic_model = keras_ic.rewrite(model, weights="preserve")
    keras_ic.calibrate(ic_model, x, verbose=0)
    took = seconds(lambda: folded.append(keras_ic.fold(ic_model)))
    difference = relative_difference(ic_model(x, training=False), folded[-1](x, training=False))
    left = sum(len(batch_normalizations(made)) + len(ics(made)) for made in folded)
    changes = [
        change for change in keras_ic.plan_fold(ic_model).changes if change.kind != "activation"
    ]
    kept = sum("becomes" in change.result or "stays" in change.result for change in changes)
    return [
        name,
        normalizations,
        usual_difference,
        usual_seconds,
        len(ics(ic_model)),
        difference,
        in_float64(fold_difference, name),
        took,
        left,
        kept,
    ]


def fold_difference(model: keras.Model, x) -> float:
    """How far the folded IC form is from the IC form."""
    ic_model = keras_ic.rewrite(model, weights="preserve")
    keras_ic.calibrate(ic_model, x, verbose=0)
    return relative_difference(
        ic_model(x, training=False), keras_ic.fold(ic_model)(x, training=False)
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks alone")
    parser.add_argument("--out", metavar="FILE", help="where to write the table; shown in any case")
    arguments = parser.parse_args()
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    print("\n".join(lines))
    for name in arguments.only or networks():
        lines.append("| " + " | ".join(map(shown, check(name))) + " |")
        print(lines[-1], flush=True)
        if arguments.out:
            with open(arguments.out, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        keras.backend.clear_session()
    return 0


if __name__ == "__main__":
    sys.exit(main())
