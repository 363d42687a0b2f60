"""The IC layer's first ten minutes: one small network on real images, four ways, three seeds each.

    python examples/quickstart.py            (or `make demo`, which makes the environment too)

The images are scikit-learn's 1,797 scanned digits, so nothing is downloaded. The four ways are

- baseline: convolution, BatchNorm, ReLU;
- baseline, dropout: the same with Dropout in its usual place, after each ReLU;
- IC: convolution, ReLU, IC, so that each weight layer but the first reads normalized, slightly
  dropped-out inputs;
- IC, rate 0: the same without dropout, which tells what the moved BatchNorm does from what the
  dropout does.

Each network is tested as trained, and with its moving statistics re-estimated without dropout. It
prints a table, draws the curves, and saves the IC model, loads it back and predicts again.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ic
from keras_ic.training import datasets

WAYS = ("baseline", "baseline, dropout", "IC", "IC, rate 0")
# An epoch has 29 steps; Keras's 0.99 would have the statistics lag behind by more than three
# epochs.
MOMENTUM = 0.9
# Of Okabe and Ito's palette, which colour-blind readers tell apart.
COLOURS = dict(zip(WAYS, ("#000000", "#E69F00", "#D55E00", "#0072B2"), strict=True))


def network(way, rate):
    """Three convolutions and a classifier as the baseline, or rewritten into the IC order."""
    stack = [keras.Input((8, 8, 1))]
    for filters, strides in ((16, 1), (32, 2), (32, 1)):
        stack.append(keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False))
        stack.append(keras.layers.BatchNormalization(momentum=MOMENTUM))
        stack.append(keras.layers.ReLU())
        if way == "baseline, dropout":
            stack.append(keras.layers.Dropout(rate))
    model = keras.Sequential([*stack, keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    if way.startswith("baseline"):
        return model
    model = keras_ic.rewrite(model, 0.0 if way == "IC, rate 0" else rate)
    for layer in model.layers:
        if isinstance(layer, keras_ic.IC):
            layer.momentum = MOMENTUM
    return model


class Watch(keras.callbacks.Callback):
    """Times each step, and moves one progress bar along for all the runs."""

    def __init__(self, bar, way):
        super().__init__()
        self.bar, self.way, self.steps = bar, way, []

    def on_train_batch_begin(self, batch, logs=None):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(time.perf_counter() - self.begin)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.add(1, [(f"{self.way}: test accuracy", logs["val_accuracy"])])


def run(way, seed, arguments, images, bar):
    """Trains one network; returns it and its curves, with its accuracy once more recalibrated."""
    (x, y), test = images
    keras.utils.set_random_seed(seed)
    model = network(way, arguments.rate)
    watch = Watch(bar, way)
    history = model.fit(
        x,
        y,
        batch_size=32,
        epochs=arguments.epochs,
        validation_data=test,
        callbacks=[watch],
        verbose=0,
    ).history
    keras_ic.recalibrate(model, x, verbose=0)
    return model, {
        "way": way,
        "seed": seed,
        "loss": history["loss"],
        "accuracy": history["val_accuracy"],
        "recalibrated": model.evaluate(*test, verbose=0, return_dict=True)["accuracy"],
        "milliseconds_a_step": 1000 * statistics.median(watch.steps),
    }


def table(record):
    """The comparison as a Markdown table."""
    runs = {way: [r for r in record["runs"] if r["way"] == way] for way in WAYS}
    goal = statistics.mean(r["accuracy"][-1] for r in runs["baseline"])

    def percent(values):
        spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{100 * statistics.mean(values):.2f}{spread}"

    def first(curve):
        return next((epoch for epoch, accuracy in enumerate(curve, 1) if accuracy >= goal), None)

    lines = [
        (
            "| network | final test accuracy as trained, % | recalibrated, % | epochs to the"
            f" baseline's final {100 * goal:.2f} %, each seed | change from epoch to epoch after"
            " the first quarter, points | time a step, ms |"
        ),
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for way, its in runs.items():
        # Not the steep beginning, where every change is progress.
        change = statistics.mean(
            100 * np.abs(np.diff(r["accuracy"][len(r["accuracy"]) // 4 :])).mean() for r in its
        )
        epochs = ", ".join(str(first(r["accuracy"]) or "never") for r in its)
        cells = [
            way,
            percent([r["accuracy"][-1] for r in its]),
            percent([r["recalibrated"] for r in its]),
            epochs,
            f"{change:.2f}",
            f"{statistics.median(r['milliseconds_a_step'] for r in its):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(record, path):
    """Mean curves over the seeds, with the band from the lowest to the highest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    with pyplot.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        canvas, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
        for way in WAYS:
            its = [r for r in record["runs"] if r["way"] == way]
            for axes, key, scale in ((left, "accuracy", 100), (right, "loss", 1)):
                curves = scale * np.array([r[key] for r in its])
                epochs = np.arange(1, curves.shape[1] + 1)
                axes.plot(epochs, curves.mean(0), color=COLOURS[way], linewidth=2.2, label=way)
                axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
                axes.fill_between(
                    epochs,
                    curves.min(0),
                    curves.max(0),
                    color=COLOURS[way],
                    alpha=0.15,
                    linewidth=0,
                )
        final = 100 * np.array([r["accuracy"] for r in record["runs"]])
        left.set(
            xlabel="epoch",
            ylabel="test accuracy, %",
            ylim=(max(np.quantile(final, 0.1) - 2, 0), 100.2),
            title="Test accuracy",
        )
        right.set(xlabel="epoch", ylabel="training loss", yscale="log", title="Training loss")
        left.legend(frameon=False, loc="lower right")
        seeds = len({r["seed"] for r in record["runs"]})
        canvas.suptitle(
            f"1,797 scanned digits, one small network in four ways: mean and range of {seeds}"
            " seeds",
            fontsize=12,
        )
        canvas.savefig(path, dpi=150)
        pyplot.close(canvas)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each run (default: 20)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each network (default: 3)")
    parser.add_argument(
        "--rate", type=float, default=0.05, help="the probability to drop a value (default: 0.05)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    arguments = parser.parse_args(argv)
    if arguments.epochs < 4 or arguments.seeds < 1 or not 0 <= arguments.rate < 1:
        parser.error("--epochs must be 4 or more, --seeds 1 or more and --rate in [0, 1)")
    arguments.out.mkdir(parents=True, exist_ok=True)

    images = datasets.digits(test_fraction=0.5)  # a large test set: one image is a ninth of a point
    bar = keras.utils.Progbar(len(WAYS) * arguments.seeds * arguments.epochs, unit_name="epoch")
    models, runs = {}, []
    for seed in range(arguments.seeds):
        for way in WAYS:
            models[way], result = run(way, seed, arguments, images, bar)
            runs.append(result)

    versions = {
        "keras": keras.__version__,
        "keras_ic": keras_ic.__version__,
        "backend": keras.backend.backend(),
    }
    record = {
        "epochs": arguments.epochs,
        "rate": arguments.rate,
        "versions": versions,
        "runs": runs,
    }
    (arguments.out / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    figure(record, arguments.out / "curves.png")
    print(f"\n{table(record)}\n")

    model, (x, _) = models["IC"], images[1]
    model.save(arguments.out / "ic.keras")
    loaded = keras.models.load_model(arguments.out / "ic.keras")
    difference = np.abs(loaded.predict(x, verbose=0) - model.predict(x, verbose=0)).max()
    print(
        "The IC model, saved and loaded, predicts the same: the largest difference is"
        f" {difference:g}."
    )
    print(
        f"Figure: {arguments.out / 'curves.png'}; record: {arguments.out / 'record.json'}; model:"
        f" {arguments.out / 'ic.keras'}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
