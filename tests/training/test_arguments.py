import argparse

import pytest

from keras_ic.training.arguments import FIELDS, add_fields, command_line, described, given
from keras_ic.training.config import TrainingConfig


def parsed(words):
    parser = argparse.ArgumentParser()
    add_fields(parser, is_grid=False)
    return given(parser.parse_args(words))


@pytest.mark.parametrize(
    "values",
    [
        {
            "order": "conv-bn-relu",
            "dropout": 0.1,
            "augment": False,
            "optimizer": "sgd",
            "decoupled_weight_decay": 0.1,
            "seed": 3,
        },
        {"order": "ic-conv-relu", "rate": 0.0, "recalibrate": "end", "data": "cifar100"},
        {
            "rate_depth": "stages",
            "rates": (0.0, 0.075, 0.3),
            "learning_rate": 0.0123456789,
            "schedule": "one-cycle",
            "classifier_ic": False,
        },
        {"data": "digits", "model": "small", "train_size": 99, "weight_decay": 0.0},
        {"data": "imagenet2012", "epochs": 10, "warmup_epochs": 2, "schedule": "cosine"},
    ],
)
def test_the_command_line_gives_the_configuration(values):
    """The preset of the data gives what is not said."""
    from keras_ic.training.presets import preset_of

    config = TrainingConfig(**values)
    words = command_line(config).split()
    assert words[:2] == ["keras-ic", "train"]
    said = parsed(words[2:])
    assert preset_of(said.pop("data"), **said) == config


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_an_argument_with_its_help(name):
    parser = argparse.ArgumentParser()
    add_fields(parser)
    flag = f"--{name.replace('_', '-')}"
    assert flag in parser.format_help()
    assert FIELDS[name].metadata["help"].split()[0] in described(name)
