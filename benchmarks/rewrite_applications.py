"""Rewrites every network of keras.applications in all three modes and writes a table of what came
out.

    python -m benchmarks.rewrite_applications [--only NAME ...] [--out table.md]

Each network gets small inputs, ten classes without a softmax, and BatchNormalization parameters and
statistics far from their defaults. For each mode: is any BatchNormalization left; has every weight
layer its IC layer or a reason to have none; how far is the function from the given network's
(`preserve`); does the model come back from a `.keras` file with equal outputs; is the loss of one
training step finite; and how long does `rewrite` take beside `keras.models.clone_model` on the same
network, the best of three each, taken in turns.

The difference is measured twice. In float32 the statistics are near those of the data, with two to
five times their variance, as far from their defaults as a network of random weights can be moved
before its own float32 outputs change by a percent where its inputs change by a rounding error. In
float64 every statistic and parameter is drawn at random, whatever the data are: what is left there
is the error of the rewriting, not of rounding.
"""

import argparse
import inspect
import os
import sys
import tempfile
import time

import keras
import numpy as np

import keras_ic
from tests.surgery.models import batch_normalizations, randomize, settle

MODES = ("fresh", "copy", "preserve")
LARGER = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
HEADER = [
    "network",
    "weight layers",
    "IC",
    "without",
    "BatchNorm",
    "left",
    "affine",
    "preserve: difference",
    "in float64",
]
HEADER += ["saved and loaded", "training step"]
HEADER += ["clone_model, s", *(f"{mode}, s" for mode in MODES), "slowest / clone_model"]


def networks() -> list[str]:
    """The names of the constructors in keras.applications."""
    return sorted(
        name for name, value in vars(keras.applications).items() if inspect.isfunction(value)
    )


def build(name: str) -> keras.Model:
    """The network, small, with fresh weights."""
    size = LARGER.get(name, 64 if name.startswith("NASNet") else 32)
    return getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )


def sample(model: keras.Model) -> np.ndarray:
    """Noise in the range of the network's inputs."""
    noise = (
        np.random.default_rng(1).normal(0.0, 1.0, (16, *model.input_shape[1:])).astype("float32")
    )
    return noise * 255 if model.layers[1].name.startswith("rescaling") else noise


def relative_difference(given, other) -> float:
    given, other = keras.ops.convert_to_numpy(given), keras.ops.convert_to_numpy(other)
    return float(np.max(np.abs(given - other)) / np.max(np.abs(given)))


def in_float64(measure, name: str) -> float:
    """What `measure` gives for the network in float64, with every parameter of every normalization
    drawn at random.
    """
    given = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = randomize(build(name))
        return measure(model, sample(model).astype("float64"))
    finally:
        keras.config.set_dtype_policy(given)


def preserve_difference(model: keras.Model, x) -> float:
    """How far `preserve` is from the given function, on two inputs."""
    return relative_difference(
        model(x[:2], training=False),
        keras_ic.rewrite(model, weights="preserve")(x[:2], training=False),
    )


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def check(name: str) -> dict:
    """One row of the table; raises AssertionError where a promise is broken."""
    model = build(name)
    settle(model, sample(model))
    x = sample(model)[:2]
    outputs = model(x, training=False)
    plan = keras_ic.plan(model, weights="preserve")
    weight_layers = {change.layer for change in plan.changes if change.kind == "ic"}
    without = [skip for skip in plan.skipped if skip.reason.startswith("no IC")]
    row = dict.fromkeys(HEADER, "")
    row.update(
        {
            "network": name,
            "weight layers": len(weight_layers) + len(without),
            "IC": len(weight_layers),
            "without": len(without),
        }
    )
    row.update(
        {
            "BatchNorm": len(batch_normalizations(model)),
            "affine": sum("becomes" in change.result for change in plan.changes),
        }
    )
    saved, trained, left = True, True, 0
    times: dict = {"clone_model": [seconds(lambda: keras.models.clone_model(model))]}
    for mode in MODES:
        start = time.perf_counter()
        new = keras_ic.rewrite(model, weights=mode)
        times[mode] = [time.perf_counter() - start]
        left += len(batch_normalizations(new))
        new_outputs = new(x, training=False)
        if mode == "preserve":
            row["preserve: difference"] = relative_difference(outputs, new_outputs)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.keras")
            new.save(path)
            loaded = keras.models.load_model(path)
        saved &= bool(
            np.array_equal(
                keras.ops.convert_to_numpy(loaded(x, training=False)),
                keras.ops.convert_to_numpy(new_outputs),
            )
        )
        new.compile(
            "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True
        )
        trained &= bool(np.isfinite(new.train_on_batch(x, np.array([0, 1]))))
        del new, loaded
    row.update(
        {
            "left": left,
            "saved and loaded": "equal" if saved else "DIFFERENT",
            "training step": "finite" if trained else "NOT FINITE",
        }
    )
    for _ in range(2):
        times["clone_model"].append(seconds(lambda: keras.models.clone_model(model)))
        for mode in MODES:
            times[mode].append(seconds(lambda mode=mode: keras_ic.rewrite(model, weights=mode)))
    best = {key: min(value) for key, value in times.items()}
    row["clone_model, s"] = best["clone_model"]
    row.update({f"{mode}, s": best[mode] for mode in MODES})
    row["slowest / clone_model"] = max(best[mode] for mode in MODES) / best["clone_model"]
    row["in float64"] = in_float64(preserve_difference, name)
    return row


def kept(row: dict) -> bool:
    """Whether the row keeps every promise."""
    same = (
        row["preserve: difference"] <= 1e-4
        and row["in float64"] <= 1e-6
        and row["saved and loaded"] == "equal"
    )
    quick = row["slowest / clone_model"] <= 2 and max(row[f"{mode}, s"] for mode in MODES) <= 5
    return row["left"] == 0 and row["training step"] == "finite" and same and quick


def shown(value) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if value < 1e-3 else f"{value:.2f}"
    return str(value)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks alone")
    parser.add_argument("--out", metavar="FILE", help="where to write the table; shown in any case")
    arguments = parser.parse_args()
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    print("\n".join(lines))
    broken = []
    for name in arguments.only or networks():
        row = check(name)
        lines.append("| " + " | ".join(shown(row[column]) for column in HEADER) + " |")
        print(lines[-1], flush=True)
        if not kept(row):
            broken.append(name)
        keras.backend.clear_session()
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    print(
        f"Every promise kept by {len(lines) - 2 - len(broken)} of {len(lines) - 2} networks.",
        *broken,
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
