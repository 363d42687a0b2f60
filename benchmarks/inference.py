"""What a network costs at inference: its IC form and its baseline, each as trained and folded,
beside the same network without normalization.

    KERAS_BACKEND=tensorflow python benchmarks/inference.py --out benchmarks/results
    KERAS_BACKEND=tensorflow python benchmarks/inference.py --forms

All variants of a network run in one process, in turns that begin with another one each time, so
that whatever else the machine does hits each alike. A time is a median; a ratio is the median of
the ratios to the plain network in the same turn. "plain" is the IC form without its IC layers:
weight layers and activations, nothing else, with the same biases. `litert` and `onnx` run the
exported models in LiteRT and ONNX Runtime, where these are installed. `--forms` times the four ways
to have a shift before a convolution that pads with zeros; see `keras_ic.surgery.folding`.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops

import keras_ic
from keras_ic.utils.keras_internals import sublayers

BACKEND = keras.backend.backend()
MODES = {
    "tensorflow": ("xla", "graph", "litert", "onnx"),
    "jax": ("jit",),
    "torch": ("eager", "onnx"),
}[BACKEND]
SIZES = {"ResNet20": 32, "ResNet50": 224, "MobileNetV2": 224, "VGG16": 224}
VARIANTS = ("plain", "IC", "IC folded", "usual", "usual folded")
FORMS = (
    "plain",
    "bounds of the ReLU",
    "addition",
    "map of biases",
    "constant padding",
    "BatchNormalization",
)
LEAST_TURNS = 5
PACKAGES = (
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "jax",
    "torch",
    "ai-edge-litert",
    "onnxruntime",
    "numpy",
)


def trained(model, size):
    """The model with statistics from data, and shifts and scales that are neither 0 nor 1."""
    random = np.random.default_rng(0)
    if normalizations(model):  # VGG16's baseline has none.
        keras_ic.recalibrate(
            model, random.normal(size=(4, size, size, 3)).astype("float32"), batch_size=4, verbose=0
        )
    for layer in normalizations(model):
        layer.beta.assign(random.normal(0.0, 0.1, layer.beta.shape))
        layer.gamma.assign(random.uniform(0.8, 1.2, layer.gamma.shape))
    return model


def normalizations(model):
    return [
        layer
        for layer in sublayers(model)
        if isinstance(layer, (keras_ic.IC, layers.BatchNormalization))
    ]


def variants(name, size):
    """The five models by name."""
    if name == "ResNet20":
        usual, ic = (
            keras_ic.applications.ResNet(20, order=order, seed=0, input_shape=(size, size, 3))
            for order in ("usual", "ic")
        )
        plain = keras_ic.applications.ResNet(20, order="ic", seed=0, input_shape=(size, size, 3))
    else:
        usual = getattr(keras.applications, name)(
            weights=None, input_shape=(size, size, 3), classes=1000, classifier_activation=None
        )
        ic = keras_ic.rewrite(usual, weights="copy")
        plain = keras_ic.rewrite(usual, weights="copy")
    for layer in normalizations(plain):
        # The identity, which folding just takes out.
        layer.gamma.assign(np.sqrt(layer.moving_variance.numpy() + layer.epsilon))
    made = {
        "plain": keras_ic.fold(plain),
        "IC": trained(ic, size),
        "IC folded": None,
        "usual": trained(usual, size),
        "usual folded": None,
    }
    made["IC folded"] = keras_ic.fold(ic)
    made["usual folded"] = keras_ic.fold(usual) if normalizations(usual) else usual
    return made


def runner(model, x, mode):
    """A function that runs the model on `x` once, waits for it, and returns the outputs."""
    if mode in ("xla", "graph"):
        import tensorflow as tf

        compiled = tf.function(
            lambda x: model(x, training=False), jit_compile=mode == "xla", autograph=False
        )
        tensor = tf.constant(x)
        return lambda: compiled(tensor).numpy()
    if mode == "jit":
        import jax

        values = (
            [variable.value for variable in model.trainable_variables],
            [variable.value for variable in model.non_trainable_variables],
        )
        compiled = jax.jit(lambda values, x: model.stateless_call(*values, x, training=False)[0])
        tensor = ops.convert_to_tensor(x)
        return lambda: np.asarray(compiled(values, tensor))
    if mode == "eager":
        import torch

        tensor = ops.convert_to_tensor(x)

        def run():
            with torch.inference_mode():
                return model(tensor, training=False).cpu().numpy()

        return run
    return exported(model, x, mode)


def exported(model, x, mode):
    """The same of the exported model in its runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"model.{'tflite' if mode == 'litert' else 'onnx'}")
        signature = [keras.InputSpec(shape=x.shape, dtype="float32", name="images")]
        model.export(path, format=mode, verbose=False, input_signature=signature)
        if mode == "litert":
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(
                model_content=Path(path).read_bytes(), num_threads=os.cpu_count()
            )
            interpreter.allocate_tensors()
            given, wanted = (
                interpreter.get_input_details()[0]["index"],
                interpreter.get_output_details()[0]["index"],
            )

            def run():
                interpreter.set_tensor(given, x)
                interpreter.invoke()
                return interpreter.get_tensor(wanted)

            return run
        import onnxruntime

        session = onnxruntime.InferenceSession(
            Path(path).read_bytes(), providers=["CPUExecutionProvider"]
        )
        given = session.get_inputs()[0].name
        return lambda: session.run(None, {given: x})[0]


def timed(runs, arguments):
    """By name, the median time in milliseconds and the median ratio to the first; the order of the
    turns rotates.
    """
    names = list(runs)
    for run in runs.values():
        run()
        run()
    turns = []
    end = time.perf_counter() + arguments.seconds
    for turn in range(arguments.repeats):
        if turn >= LEAST_TURNS and time.perf_counter() > end:
            break
        times = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.perf_counter()
            runs[name]()
            times[name] = time.perf_counter() - begin
        turns.append(times)
    return {
        name: {
            "ms": 1e3 * statistics.median(times[name] for times in turns),
            "ratio": statistics.median(times[name] / times[names[0]] for times in turns),
        }
        for name in names
    }


def networks(arguments):
    """One row a network, mode and batch."""
    for name in arguments.networks:
        size = arguments.size or SIZES[name]
        models = variants(name, size)
        for mode in arguments.modes:
            for batch in arguments.batches:
                x = np.random.default_rng(1).normal(size=(batch, size, size, 3)).astype("float32")
                runs = {variant: runner(model, x, mode) for variant, model in models.items()}
                difference = {
                    kind: float(
                        np.abs(runs[f"{kind} folded"]() - runs[kind]()).max()
                        / np.abs(runs[kind]()).max()
                    )
                    for kind in ("IC", "usual")
                }
                row = {"network": name, "size": size, "mode": mode, "batch": batch}
                yield {**row, "times": timed(runs, arguments), "difference": difference}
        keras.backend.clear_session()


class Shifted(layers.Layer):
    """One way to have the shift; `kind` is of `FORMS`."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def build(self, shape):
        """One vector, or a value for each place."""
        self.shift = self.add_weight(
            shape=shape[1:] if self.kind == "map of biases" else (shape[-1],),
            initializer="random_normal",
        )

    def call(self, x):
        """What the form does to a tensor."""
        if self.kind == "bounds of the ReLU":
            return ops.maximum(x, self.shift)
        if self.kind == "constant padding":
            return ops.pad(x - self.shift, [[0, 0], [1, 1], [1, 1], [0, 0]]) + self.shift
        return x + self.shift


def stack(form, size, channels, depth=6):
    """Convolution, ReLU and the shift before the next convolution, several times."""
    x = inputs = keras.Input((size, size, channels))
    for index in range(depth):
        padding = "valid" if form == "constant padding" and index else "same"
        x = layers.Conv2D(channels, 3, padding=padding, use_bias=form != "map of biases")(x)
        if form in ("map of biases", "bounds of the ReLU"):
            x = Shifted(form)(x)
        if form != "bounds of the ReLU":
            x = layers.ReLU()(x)
        if form in ("addition", "constant padding"):
            x = Shifted(form)(x)
        if form == "BatchNormalization":
            # Not zeros, which an exporter would leave out.
            x = layers.BatchNormalization(beta_initializer="random_normal")(x)
    return keras.Model(inputs, x)


def forms(arguments):
    """One row a size, mode and batch."""
    for size, channels in ((32, 16), (56, 64), (14, 256)):
        models = {form: stack(form, size, channels) for form in FORMS}
        for mode in arguments.modes:
            for batch in arguments.batches:
                x = (
                    np.random.default_rng(1)
                    .normal(size=(batch, size, size, channels))
                    .astype("float32")
                )
                runs = {form: runner(model, x, mode) for form, model in models.items()}
                row = {
                    "network": f"6 convolutions of {channels} channels",
                    "size": size,
                    "mode": mode,
                    "batch": batch,
                }
                yield {**row, "times": timed(runs, arguments)}


def line(row):
    """One line of the table."""
    times = row["times"]
    first, *others = times
    cells = [
        row["network"],
        str(row["size"]),
        row["mode"],
        str(row["batch"]),
        f"{times[first]['ms']:.2f} ms",
    ]
    cells += [f"{times[name]['ms']:.2f} ms ({times[name]['ratio']:.3f})" for name in others]
    return (
        "| "
        + " | ".join([*cells, *(f"{value:.1e}" for value in row.get("difference", {}).values())])
        + " |"
    )


def versions():
    """What ran this, and on what."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "backend": BACKEND,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        **found,
    }


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", choices=list(SIZES), default=list(SIZES), metavar="NAME"
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=MODES,
        default=MODES,
        metavar="MODE",
        help=f"of {', '.join(MODES)}",
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32], metavar="N")
    parser.add_argument(
        "--size", type=int, help="height and width of the images (default: the network's own)"
    )
    parser.add_argument(
        "--repeats", type=int, default=50, help="turns of a row, at most (default: 50)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        help=f"a row ends after these, once it has {LEAST_TURNS} turns (default: 30)",
    )
    parser.add_argument(
        "--forms", action="store_true", help="time the forms of a shift before padding instead"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to write the table and the JSON; the table is shown in any case",
    )
    arguments = parser.parse_args(argv)
    arguments.modes = [
        mode for mode in arguments.modes if mode not in ("litert", "onnx") or _installed(mode)
    ]
    names, made = (FORMS, forms) if arguments.forms else (VARIANTS, networks)
    header = [
        "network",
        "size",
        "mode",
        "batch",
        names[0],
        *(f"{name} (ratio)" for name in names[1:]),
    ]
    header += [] if arguments.forms else ["IC folded differs by", "usual folded differs by"]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    print("\n".join(lines), flush=True)
    rows = []
    for row in made(arguments):
        rows.append(row)
        lines.append(line(row))
        print(lines[-1], flush=True)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            path = arguments.out / f"inference_{'forms_' if arguments.forms else ''}{BACKEND}"
            path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
            record = {
                "versions": versions(),
                "repeats": arguments.repeats,
                "seconds": arguments.seconds,
                "rows": rows,
            }
            path.with_suffix(".json").write_text(
                json.dumps(record, indent=2) + "\n", encoding="utf-8"
            )
    return 0


def _installed(mode) -> bool:
    wanted = {
        "litert": ("ai_edge_litert",),
        "onnx": ("onnxruntime", "tf2onnx") if BACKEND == "tensorflow" else ("onnxruntime", "onnx"),
    }[mode]
    try:
        for package in wanted:
            __import__(package)
    except ImportError as error:
        print(f"{mode} is left out: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
