"""From a network in IC form to the formats that networks are served in: folded, exported, and
checked in the runtime of each format.

    python examples/deploy.py MODEL.keras --out deployed
    python examples/deploy.py --out deployed              # without a model: a small one, trained on
    digits in a few seconds

Folding takes the IC, BatchNormalization and dropout layers out; see docs/deployment.md. Each format
is then written by `model.export`, loaded by its own runtime, and compared with what Keras predicts;
a format whose tools are not installed is left out with one line. `pip install '.[deploy]'` installs
the tools of all of them. Exit code 1: an exported model computes something else.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ic

TOLERANCE = 1e-4
QUANTIZED_TOLERANCE = 0.1


def trained():
    """A small network in IC form that knows digits."""
    from keras_ic.training import datasets

    keras.utils.set_random_seed(0)
    (x, y), _ = datasets.digits()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:], name="images"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras_ic.IC(0.05, momentum=0.9),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            keras_ic.IC(0.05, momentum=0.9),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(x, y, batch_size=32, epochs=3, verbose=0)
    return model


def saved_model(model, x, folder):
    """A TensorFlow SavedModel, for TensorFlow Serving and everything that reads one."""
    import tensorflow as tf

    path = folder / "saved_model"
    model.export(path, format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(path)  # Held by a name: what it serves is gone with it.
    return path, loaded.serve(x).numpy()


def litert(model, x, folder):
    """A LiteRT (TFLite) file, for phones and small devices."""
    from ai_edge_litert.interpreter import Interpreter

    path = folder / "model.tflite"
    model.export(path, format="litert", verbose=False)
    interpreter = Interpreter(model_path=str(path))
    given, wanted = (
        interpreter.get_input_details()[0]["index"],
        interpreter.get_output_details()[0]["index"],
    )
    interpreter.resize_tensor_input(given, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given, x)
    interpreter.invoke()
    return path, interpreter.get_tensor(wanted)


def onnx(model, x, folder):
    """An ONNX file, for ONNX Runtime, TensorRT and others."""
    if keras.backend.backend() == "tensorflow":
        import tf2onnx  # noqa: F401  # what Keras exports with
    import onnxruntime

    path = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tf2onnx asks for names that NumPy gave up
        model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return path, session.run(None, {session.get_inputs()[0].name: x})[0]


def openvino(model, x, folder):
    """The two files of OpenVINO, for Intel hardware."""
    import openvino as ov

    path = folder / "model.xml"
    model.export(str(path), format="openvino", verbose=False)
    # As it comes, OpenVINO computes in bfloat16 on processors that can.
    return (
        path,
        ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0],
    )


def int8(model, x, folder):
    """A Keras file with weights of 8 bits in its Dense layers. A copy is quantized: it cannot be
    undone.
    """
    path = folder / "model_int8.keras"
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    with warnings.catch_warnings():
        # One for each layer that has nothing to quantize.
        warnings.simplefilter("ignore", UserWarning)
        copy.quantize("int8")
    copy.save(path)
    return path, keras.ops.convert_to_numpy(
        keras.models.load_model(path, compile=False)(x, training=False)
    )


FORMATS = {
    "saved_model": saved_model,
    "litert": litert,
    "onnx": onnx,
    "openvino": openvino,
    "int8": int8,
}
# The Keras backends that export to a format, where these are not all.
BACKENDS = {
    "saved_model": ("tensorflow", "jax"),
    "litert": ("tensorflow", "torch"),
    "openvino": ("tensorflow", "torch"),
}


def deploy(model, folder, formats=tuple(FORMATS)):
    """Folds and exports; returns by format how far its runtime is from Keras, relative to the
    largest output, or why it was left out.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folded = keras_ic.fold(model)
    folded.save(folder / "model.keras")
    x = (
        np.random.default_rng(0)
        .uniform(size=(4, *(size or 32 for size in folded.input_shape[1:])))
        .astype("float32")
    )
    expected = keras.ops.convert_to_numpy(model(x, training=False))

    def difference(outputs):
        return float(np.abs(np.asarray(outputs) - expected).max() / np.abs(expected).max())

    results = {"folded": difference(keras.ops.convert_to_numpy(folded(x, training=False)))}
    print(
        f"folded into {folder / 'model.keras'}: {_count(model)} layers -> {_count(folded)}; differs"
        f" by {results['folded']:.1e}"
    )
    for name in formats:
        backend = keras.backend.backend()
        if backend not in BACKENDS.get(name, (backend,)):
            results[name] = f"left out: on the {backend} backend, Keras does not export to it"
            print(f"{name} is {results[name]}")
            continue
        try:
            path, outputs = FORMATS[name](folded, x, folder)
        except ImportError as error:
            results[name] = f"left out: {error}"
            print(
                f"{name} is left out, as its tools are not installed ({error}): pip install"
                " 'keras-ic[deploy]'"
            )
            continue
        results[name] = difference(outputs)
        print(f"{name}: {path}; its runtime differs from Keras by {results[name]:.1e}")
    return results


def _count(model):
    return len(list(model._flatten_layers(include_self=False)))


def main(argv=None) -> int:
    """Runs the recipes; see the top of the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL.keras",
        help="a saved model with one input and one output (default: a small one)",
    )
    parser.add_argument(
        "--out",
        default="runs/deployed",
        metavar="FOLDER",
        help="where to write (default: %(default)s)",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=list(FORMATS),
        default=list(FORMATS),
        metavar="FORMAT",
        help=f"of {', '.join(FORMATS)}",
    )
    arguments = parser.parse_args(argv)
    model = keras.models.load_model(arguments.model) if arguments.model else trained()
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        parser.error(
            "the recipes are for models with one input and one output. Received:"
            f" {len(model.inputs)} and {len(model.outputs)}"
        )
    results = deploy(model, arguments.out, arguments.formats)
    limits = {name: QUANTIZED_TOLERANCE if name == "int8" else TOLERANCE for name in results}
    wrong = [
        name
        for name, value in results.items()
        if not isinstance(value, str) and not value <= limits[name]
    ]
    if wrong:
        print(f"These compute something else than Keras: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
