"""How sure is the network? Monte-Carlo prediction on scikit-learn's scanned digits, with and
without it.

    python examples/uncertainty.py

A small network in IC form is trained on 1,438 of the digits and tested on the other 359, and on the
same 359 with noise added, which it has never seen. Once it predicts as usual, and once
`keras_ic.predict_with_uncertainty` averages predictions with dropout on. The expected calibration
error (Naeini et al., 2015) is the mean distance between how sure a prediction is and how often such
predictions are right; 0 is best.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ic
from keras_ic.training import datasets


def trained(x, y, rate, epochs, seed):
    """The network, trained."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras_ic.IC(rate, momentum=0.9),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            keras_ic.IC(rate, momentum=0.9),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return model


def calibration_error(probabilities, labels, bins=10):
    """The expected calibration error: confidences in bins of equal width, each weighted with how
    many fall into it.
    """
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    errors = [
        abs(confidence[place == number].mean() - right[place == number].mean())
        * np.mean(place == number)
        for number in np.unique(place)
    ]
    return float(np.sum(errors))


def main(argv=None) -> dict:
    """Runs the comparison, prints it and returns it; see the top of the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rate", type=float, default=0.1, help="probability to drop a value (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument(
        "--noise",
        type=float,
        default=0.5,
        help="standard deviation of the noise in the harder test (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    (x, y), (x_test, y_test) = datasets.digits()
    model = trained(x, y, arguments.rate, arguments.epochs, arguments.seed)
    noise = (
        np.random.default_rng(arguments.seed)
        .normal(0.0, arguments.noise * x_test.std(), x_test.shape)
        .astype("float32")
    )
    results = {}
    print(
        f"{'images':8}{'prediction':14}{'accuracy, %':>12}"
        f"{'calibration error, %':>22}{'log-likelihood':>16}"
    )
    for images, given in (("clean", x_test), ("noisy", x_test + noise)):
        sampled = keras_ic.predict_with_uncertainty(
            model,
            given,
            samples=arguments.samples,
            batch_size=256,
            seed=arguments.seed,
            verbose=0,
        )
        for way, probabilities in (
            ("usual", model.predict(given, verbose=0)),
            ("Monte-Carlo", sampled.mean),
        ):
            accuracy = float(np.mean(probabilities.argmax(-1) == y_test))
            likelihood = float(
                np.mean(np.log(np.maximum(probabilities[np.arange(len(y_test)), y_test], 1e-9)))
            )
            error = calibration_error(probabilities, y_test)
            results[images, way] = {
                "accuracy": accuracy,
                "calibration_error": error,
                "log_likelihood": likelihood,
            }
            print(f"{images:8}{way:14}{100 * accuracy:12.2f}{100 * error:22.2f}{likelihood:16.3f}")
        wrong = sampled.mean.argmax(-1) != y_test
        spread = np.take_along_axis(sampled.std, sampled.mean.argmax(-1)[:, None], 1)[:, 0]
        results[images, "spread"] = {
            "right": float(spread[~wrong].mean()),
            "wrong": float(spread[wrong].mean()) if wrong.any() else float("nan"),
        }
        print(
            f"{images:8}mean spread where right {results[images, 'spread']['right']:.3f}, where"
            f" wrong {results[images, 'spread']['wrong']:.3f}"
        )
    return results


if __name__ == "__main__":
    main()
