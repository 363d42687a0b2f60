import json

from keras_ic.cli import main
from keras_ic.experiments.arguments import command_line
from keras_ic.experiments.configuration import Configuration


def test_the_command_line_gives_the_configuration(tmp_path, capsys):
    for values in (
        {
            "order": "usual",
            "dropout": 0.1,
            "augment": False,
            "optimizer": "sgd",
            "decoupled_weight_decay": 0.1,
            "seed": 3,
        },
        {
            "order": "ic-conv-relu",
            "rate": 0.0,
            "keep_batch_norm": True,
            "recalibrate": True,
            "rate_schedule": "anneal",
            "data": "cifar100",
        },
        {
            "rate_depth": "stages",
            "rates": (0.0, 0.075, 0.3),
            "learning_rate": 0.0123456789,
            "schedule": "one-cycle",
            "ic_layers": "alternate",
        },
        {
            "data": "digits",
            "model": "small",
            "rate_depth": "linear",
            "rates": (0.3, 0.0),
            "train_size": 99,
            "weight_decay": 0.0,
        },
    ):
        configuration = Configuration(**values)
        words = command_line(configuration).split()
        assert (
            words[0] == "keras-ic" and main([*words[1:], "--dry-run", "--out", str(tmp_path)]) == 0
        )
        assert (
            Configuration(**json.loads(capsys.readouterr().out.partition(": ")[2])) == configuration
        )
