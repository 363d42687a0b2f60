"""The arguments of `keras-ic train` that make a configuration: what they are, and those that give
one.
"""

import shlex

from keras_ic.experiments.configuration import CHOICES, Configuration

HELP = {
    "data": "",
    "model": "small, resnet20 ... resnet164, vgg16, densenet40, or a network of keras.applications",
    "order": "usual, or with IC layers; ic is the paper's choice, relu-ic-conv",
    "rate": "probability of the IC layers to drop a value",
    "seed": "of kernels, masks, and the order and augmentation of the images",
    "epochs": "the schedules stretch or shrink with it",
    "batch": "images a step, on all replicas together",
    "train_size": "train on the first N images alone",
    "image_size": "resize the images to N pixels",
    "optimizer": "",
    "learning_rate": "the largest of the schedule",
    "schedule": "of the learning rate",
    "weight_decay": "L2 penalty on kernels, in the loss",
    "decoupled_weight_decay": (
        "share of the kernels that a step takes away, times the learning rate"
    ),
    "dropout": "rate of a Dropout behind the activations of the usual order",
    "rate_schedule": "of the IC layers' rate over the epochs",
    "rate_depth": "of the IC layers' rate over the depth",
    "rates": (
        "of the depth linear, the first rate and the last; of stages, one for each equal part of"
        " the depth: 0,0.05,0.1"
    ),
    "ic_layers": "which weight layers have an IC layer",
    "dtype": "",
    "validation": (
        "share of the training images that is left out and judged on, in place of the test set"
    ),
}
FLAGS = ("keep_batch_norm", "recalibrate")


def described(name: str) -> str:
    """The choices of an argument, and what it is."""
    return "; ".join(filter(None, (", ".join(CHOICES.get(name, ())), HELP[name])))


def command_line(configuration: Configuration) -> str:
    """The command that runs a configuration."""
    defaults = Configuration(data=configuration.data, order=configuration.order).to_dict()
    words = ["keras-ic", "train"]
    for name, value in configuration.to_dict().items():
        always = name in ("data", "model", "order", "epochs", "seed") or (
            name == "rate" and configuration.order != "usual"
        )
        if not always and value == defaults[name]:
            continue
        if name in FLAGS:
            words.append(f"--{name.replace('_', '-')}")
        elif name == "augment":
            words.append("--no-augment" if value is False else "")
        elif name in HELP and not (name == "rate" and configuration.rates is not None):
            words += [
                f"--{name.replace('_', '-')}",
                ",".join(f"{rate:g}" for rate in value) if name == "rates" else str(value),
            ]
    return shlex.join(word for word in words if word)
