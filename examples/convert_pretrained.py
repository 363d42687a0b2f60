"""Takes a trained keras.applications network, rewrites it with IC layers without changing what it
computes, and fine-tunes both on real images.

    python examples/convert_pretrained.py                       (pretrained weights where they can
    be had, else trained here) python examples/convert_pretrained.py --weights none        (trained
    here on half of the training images) python examples/convert_pretrained.py --network ResNet50
    --size 64 --epochs 5

The images are scikit-learn's 1,797 scanned digits, enlarged. The steps are

1. the network, with weights from ImageNet and a new head, or trained from nothing, gets some epochs
  on half of the training images;
2. `keras_ic.rewrite(..., weights="preserve")` makes its IC form, `keras_ic.calibrate` sets the
  statistics of the IC layers: the same accuracy;
3. the given network and its IC form get the same further epochs on all of the training images.
"""

import argparse
import inspect
import json
import os
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ic
from keras_ic.training import datasets

CLASSES = 10
BATCH = 32


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--network", default="MobileNet", help="the name of a network of keras.applications"
    )
    parser.add_argument(
        "--weights",
        choices=["auto", "imagenet", "none"],
        default="auto",
        help="what the network starts from",
    )
    parser.add_argument(
        "--size", type=int, default=32, help="height and width to which the images are enlarged"
    )
    parser.add_argument(
        "--epochs", type=int, default=6, help="before the rewriting; and again after it"
    )
    parser.add_argument(
        "--rate", type=float, default=0.05, help="of the IC layers: the probability to drop a value"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", metavar="FILE", help="also write the arguments and the results as JSON"
    )
    return parser.parse_args(argv)


def images(size):
    """Digits as `(n, size, size, 3)` from 0 to 255, as the networks' own preprocessing expects
    them.
    """
    (x_train, y_train), (x_test, y_test) = datasets.digits()
    enlarged = [
        keras.ops.image.resize(
            np.repeat(x, 3, axis=-1) * 255.0, (size, size), interpolation="bilinear"
        )
        for x in (x_train, x_test)
    ]
    x_train, x_test = (keras.ops.convert_to_numpy(x) for x in enlarged)
    return (x_train, y_train), (x_test, y_test)


def body(name, weights, size):
    """The network without its head, and whether it starts from ImageNet. Narrow, where it can be,
    for these small images.
    """
    constructor = getattr(keras.applications, name)
    settings = {"include_top": False, "input_shape": (size, size, 3), "pooling": "avg"}
    if "alpha" in inspect.signature(constructor).parameters:
        settings["alpha"] = 0.5
    if weights != "none":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the weights are from larger images
                return constructor(weights="imagenet", **settings), True
        # A missing network, a proxy, a wrong size: Keras raises many kinds.
        except Exception as error:
            if weights == "imagenet":
                raise SystemExit(
                    f"The ImageNet weights of {name} cannot be had here:"
                    f" {' '.join(str(error).split())}"
                ) from error
            print(
                f"The ImageNet weights of {name} cannot be had here; training from nothing instead."
            )
    return constructor(weights=None, **settings), False


def classifier(name, weights, size):
    """Preprocessing, the network and a head, in one Functional model."""
    network, pretrained = body(name, weights, size)
    inputs = keras.Input((size, size, 3))
    outputs = keras.layers.Dense(CLASSES, name="head")(
        network(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs))
    )
    return keras.Model(inputs, outputs, name=name.lower()), pretrained


def compiled(model, learning_rate):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    return model


def accuracy(model, x, y):
    return model.evaluate(x, y, batch_size=128, verbose=0, return_dict=True)["accuracy"]


def fine_tuned(model, x, y, epochs, seed):
    """The same images in the same order for every model."""
    keras.utils.set_random_seed(seed)
    compiled(model, 3e-4).fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    # The moving statistics lag after so few steps; they are re-estimated instead.
    keras_ic.recalibrate(model, x, batch_size=128, verbose=0)
    return model


def main(argv=None):
    arguments = parse(argv)
    keras.utils.set_random_seed(arguments.seed)
    (x_train, y_train), (x_test, y_test) = images(arguments.size)
    half = len(x_train) // 2

    model, pretrained = classifier(arguments.network, arguments.weights, arguments.size)
    origin = "ImageNet" if pretrained else "random weights"
    print(
        f"{model.name} from {origin}, {model.count_params():,} parameters: {arguments.epochs}"
        f" epochs on {half} images"
    )
    compiled(model, 1e-3).fit(
        x_train[:half], y_train[:half], batch_size=BATCH, epochs=arguments.epochs, verbose=0
    )
    keras_ic.recalibrate(model, x_train[:half], batch_size=128, verbose=0)

    plan = keras_ic.plan(model, arguments.rate, weights="preserve")
    covered = sum(change.kind == "ic" for change in plan.changes)
    print(
        f"{covered} weight layers get IC layers; {len(plan.skipped)} rows of the plan say why"
        " others do not"
    )
    ic_model = keras_ic.rewrite(model, arguments.rate, weights="preserve")
    keras_ic.calibrate(ic_model, x_train[:half], batch_size=128, verbose=0)
    logits, ic_logits = (
        made.predict(x_test, batch_size=128, verbose=0) for made in (model, ic_model)
    )
    difference = float(np.max(np.abs(logits - ic_logits)) / np.max(np.abs(logits)))
    results = {
        "before": accuracy(model, x_test, y_test),
        "at once after": accuracy(ic_model, x_test, y_test),
    }
    print(
        f"accuracy on {len(x_test)} test images before {results['before']:.2%}, at once after"
        f" {results['at once after']:.2%}; ",
        end="",
    )
    print(f"largest difference of the logits {difference:.1e} of the largest logit")

    print(f"fine-tuning both for {arguments.epochs} epochs on {len(x_train)} images")
    for name, made in (("fine-tuned", model), ("IC, fine-tuned", ic_model)):
        results[name] = accuracy(
            fine_tuned(made, x_train, y_train, arguments.epochs, arguments.seed), x_test, y_test
        )
    for name, value in results.items():
        print(f"{name:16} {value:.2%}")
    results["difference"] = difference
    if arguments.out:
        versions = {
            "keras": keras.__version__,
            "keras_ic": keras_ic.__version__,
            "backend": keras.backend.backend(),
        }
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(
                {**vars(arguments), "pretrained": pretrained, "versions": versions, **results},
                file,
                indent=1,
            )
            file.write("\n")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
