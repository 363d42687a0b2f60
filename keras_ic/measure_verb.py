"""The verb `measure` of the command line, and the images that it runs."""

import argparse
import pathlib
from typing import Any

import numpy as np

from keras_ic import saving
from keras_ic.independence import measure
from keras_ic.model_verbs import add_model_verb, check_output, write_json
from keras_ic.training import datasets
from keras_ic.utils.lazy_imports import needed


def add(verbs: Any) -> None:
    """Adds the verb to a parser's."""
    verb = add_model_verb(
        verbs,
        "measure",
        _measure,
        "tell how independent the inputs of each weight layer are",
        "also write the numbers as JSON",
    )
    images = (
        "the images to run: the test images of digits, cifar10 or cifar100, or the array `x` of a"
        " file"
    )
    verb.add_argument(
        "--data", required=True, metavar="digits|cifar10|cifar100|FILE.npz", help=images
    )
    verb.add_argument(
        "--standardize",
        action="store_true",
        help="standardize test images by the training images, as `keras-ic train` does",
    )
    verb.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow-datasets (default: its own, ~/tensorflow_datasets)",
    )
    for name, default, text in (
        ("steps", None, "how many batches to read (default: all)"),
        ("batch", 32, "the size of a batch (default: %(default)s)"),
        ("seed", 0, "chooses channels, positions and pairs (default: %(default)s)"),
    ):
        verb.add_argument(f"--{name}", type=int, default=default, help=text)
    verb.add_argument("--plot", metavar="FILE", help="also draw a figure")


def _measure(arguments: argparse.Namespace) -> None:
    read = [arguments.model, arguments.data]
    check_output("-o", arguments.output, *read)
    check_output("--plot", arguments.plot, *read, *filter(None, [arguments.output]))
    if arguments.plot is not None:
        if not pathlib.Path(arguments.plot).suffix:
            raise ValueError(
                "The ending of `--plot` chooses the format of the figure; give it one, as .png."
                f" Received: {arguments.plot!r}"
            )
        needed("matplotlib.figure", "Matplotlib", "plot")  # told before the measuring
    model = saving.load_model(arguments.model)
    inputs = _inputs(arguments.data, arguments.standardize, arguments.data_dir)
    report = measure(
        model, inputs, arguments.steps, batch_size=arguments.batch, seed=arguments.seed, verbose=0
    )
    print(report)
    write_json(arguments.output, report.to_dict())
    if arguments.plot is not None:
        with saving.replacing(arguments.plot) as new:
            report.plot(new)


def _inputs(name: str, standardize: bool, data_dir: str | None) -> np.ndarray:
    if name in datasets.CLASSES:
        (train, _), (test, _) = datasets.load(name, data_dir)
        mean, std = datasets.channel_statistics(train) if standardize else (0, 1)
        return ((test - mean) / std).astype("float32")
    if not name.endswith(".npz"):
        raise ValueError(
            f"`--data` must be {', '.join(datasets.CLASSES)} or a file that ends in `.npz`."
            f" Received: {name!r}"
        )
    if standardize:
        raise ValueError(
            f"`--standardize` is for {', '.join(datasets.CLASSES)}; standardize the array in the"
            f" file yourself. Received: {name!r}"
        )
    return _array(name)


def _array(name: str) -> np.ndarray:
    try:
        with open(name, "rb") as file, np.load(file) as archive:
            array = archive["x"]
    except FileNotFoundError:
        raise
    # What is no archive, or is a damaged one, makes NumPy and zipfile raise nearly anything.
    except Exception as error:
        raise ValueError(
            f"The file must be a sound `.npz` archive with an array named x. Received: {name!r}"
        ) from error
    if array.ndim == 0 or array.dtype.kind not in "uifb":
        raise ValueError(
            f"The array x in the file must hold numbers, one example a row. Received: {array.dtype}"
            f" of shape {array.shape} in {name!r}"
        )
    return array
