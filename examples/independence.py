"""What dropout does to the dependence of real activations, measured against what the theorem says.

    python examples/independence.py --out docs/results/independence

A small network in the IC order is trained on scikit-learn's scanned digits. The outputs of its
second convolution, after the ReLU, then go through dropout at several keep probabilities p, in
three forms: as they are, shifted by a constant, and normalized as the IC layer does.
`keras_ic.measure` tells what is left of the correlation and of the mutual information of the
channels. Where the theorem holds, that is p and p squared.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ic
from keras_ic.training import datasets

KEEP = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
FORMS = {
    "normalized": "normalized: zero mean, no mass at 0",
    "shifted": "shifted: a mean, no mass at 0",
    "rectified": "ReLU as it is: a mean, and mass at 0",
}
# Of Okabe and Ito's palette, which colour-blind readers tell apart. The markers differ, too.
STYLES = {
    "normalized": {"color": "#D55E00", "marker": "o"},
    "shifted": {"color": "#0072B2", "marker": "s", "markerfacecolor": "none"},
    "rectified": {"color": "#E69F00", "marker": "^"},
}
SHIFT = 1.0
LAYER = "activations"


def trained(seed, epochs):
    """A small network in the IC order, its test accuracy, and the images."""
    keras.utils.set_random_seed(seed)
    (x, y), (x_test, y_test) = datasets.digits()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras_ic.IC(0.05, momentum=0.9),
            layers.Conv2D(32, 3, padding="same", activation="relu", name=LAYER),
            keras_ic.IC(0.05, momentum=0.9),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return model, model.evaluate(x_test, y_test, verbose=0)[1], x


def probe(activations, form, keep, seed):
    """A model whose weight layer reads the activations in this form, after dropout."""
    inputs = keras.Input(activations.shape[1:])
    if form == "normalized":
        read = keras_ic.IC(1 - keep, epsilon=1e-6, seed=seed)(inputs)
    else:
        shifted = keras.layers.Rescaling(1.0, SHIFT)(inputs) if form == "shifted" else inputs
        read = keras.layers.Dropout(1 - keep, seed=seed)(shifted)
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, name="weights")(read))


def measured(seed, epochs, rows):
    """The measures of one trained network, one entry a form and keep probability."""
    model, accuracy, x = trained(seed, epochs)
    activations = keras.Model(model.inputs, model.get_layer(LAYER).output).predict(x, verbose=0)
    found = []
    for form in FORMS:
        for keep in KEEP:
            # All images are one batch: normalized with one mean and one variance, so that nothing
            # but the dropout differs.
            options = {"batch_size": len(x), "rows": rows, "pairs": 200, "verbose": 0}
            report = keras_ic.measure(probe(activations, form, keep, seed), activations, **options)
            row = next(row for row in report.to_dict()["rows"] if row["mode"] == "training")
            found.append({"seed": seed, "form": form, "keep": keep, **row})
            print(
                f"seed {seed}, {form}, p = {keep}: correlation {row['correlation']:.4f},"
                f" information {row['mutual_information']:.4f}",
                flush=True,
            )
    zeros = float((activations == 0).mean())
    return {"seed": seed, "test_accuracy": accuracy, "share_of_zeros": zeros, "measured": found}


def ratios(record, form, name):
    """What is left of a measure at each keep probability, one list of seeds each."""
    left = []
    for keep in KEEP:
        left.append([])
        for run in record["runs"]:
            values = {row["keep"]: row[name] for row in run["measured"] if row["form"] == form}
            left[-1].append(values[keep] / values[1.0])
    return left


def table(record):
    """The ratios as a Markdown table: mean over the seeds, and half the range."""
    header = [
        "p",
        *(f"correlation, {form}" for form in FORMS),
        "p²",
        *(f"information, {form}" for form in FORMS),
    ]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    left = {
        (form, name): ratios(record, form, name)
        for form in FORMS
        for name in ("correlation", "mutual_information")
    }

    def cells(name, index):
        return [
            f"{statistics.mean(v):.3f} ± {(max(v) - min(v)) / 2:.3f}"
            for v in (left[form, name][index] for form in FORMS)
        ]

    for index, keep in enumerate(KEEP):
        row = [f"{keep:g}", *cells("correlation", index)]
        row += [f"{keep**2:.4g}", *cells("mutual_information", index)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def figure(record, path):
    """Both measures against what the theorem says, the diagonal."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(9, 4.8), layout="constrained")
    for axes, name, power, title in zip(
        canvas.subplots(1, 2),
        ("correlation", "mutual_information"),
        (1, 2),
        ("Correlation against p", "Mutual information against p²"),
        strict=True,
    ):
        expected = np.array(KEEP) ** power
        axes.plot(
            expected,
            expected,
            color="black",
            linestyle="--",
            linewidth=1,
            zorder=3,
            label="the theorem",
        )
        for form, label in FORMS.items():
            left = np.array(ratios(record, form, name))
            axes.plot(expected, left.mean(1), label=label, **STYLES[form])
            axes.fill_between(
                expected,
                left.min(1),
                left.max(1),
                color=STYLES[form]["color"],
                alpha=0.2,
                linewidth=0,
            )
        axes.set(xlabel="p" if power == 1 else "p²", ylabel="share that is left", title=title)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    seeds = len(record["runs"])
    canvas.suptitle(
        "Outputs of a trained convolution after dropout of keep probability p: mean and range of"
        f" {seeds} seeds",
        fontsize=11,
    )
    canvas.savefig(path, dpi=150)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=5, help="epochs of training (default: 5)")
    parser.add_argument(
        "--seeds", type=int, default=3, help="how many networks to train (default: 3)"
    )
    parser.add_argument(
        "--rows", type=int, default=40_000, help="positions to look at (default: 40000)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/independence"),
        help="folder for the record and the figure (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if min(arguments.epochs, arguments.seeds) < 1 or arguments.rows < 2:
        parser.error("--epochs and --seeds must be at least 1, --rows at least 2")
    runs = [measured(seed, arguments.epochs, arguments.rows) for seed in range(arguments.seeds)]
    versions = {
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
        "keras_ic": keras_ic.__version__,
    }
    record = {
        "epochs": arguments.epochs,
        "rows": arguments.rows,
        "shift": SHIFT,
        "versions": versions,
        "runs": runs,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    figure(record, arguments.out / "theorem.png")
    print(table(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
