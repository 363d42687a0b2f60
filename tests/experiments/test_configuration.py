import dataclasses

import pytest

from keras_ic.experiments import Configuration, grid


def test_the_defaults_are_the_reference_recipe():
    made = Configuration()
    assert (made.optimizer, made.learning_rate, made.schedule, made.batch, made.weight_decay) == (
        "adam",
        1e-3,
        "steps",
        64,
        1e-4,
    )
    assert (made.data, made.model, made.order, made.rate, made.epochs, made.augment) == (
        "cifar10",
        "resnet20",
        "relu-ic-conv",
        0.05,
        200,
        True,
    )


def test_equal_exactly_if_the_same_run():
    assert Configuration(order="ic") == Configuration(order="relu-ic-conv")
    usual = Configuration(order="usual")
    assert usual == Configuration(
        order="usual",
        rate=0.3,
        rate_schedule="anneal",
        rate_depth="rising",
        ic_layers="alternate",
        keep_batch_norm=True,
    )
    assert usual.rate == 0.0 and usual != Configuration(order="usual", dropout=0.05)
    assert (
        Configuration(data="digits").augment is False
        and Configuration(data="digits", augment=True).augment is True
    )
    assert Configuration(**usual.to_dict()) == usual


def test_rates_over_the_depth():
    made = Configuration(rate_depth="stages", rates=[0, 0.1, 0.2], rate=0.7)
    assert made.rates == (0, 0.1, 0.2) and made.rate == pytest.approx(0.1)
    assert (
        made
        == Configuration(**made.to_dict())
        == grid(rate_depth="stages", rates=[(0, 0.1, 0.2)])[0]
    )
    assert Configuration(order="usual", rate_depth="linear", rates=(0, 0.1)) == Configuration(
        order="usual"
    )


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Configuration().rate = 0.1


def test_names_tell_configurations_apart():
    runs = grid(
        order=["usual", "ic", "conv-relu-ic"],
        rate=[0, 0.05],
        seed=[0, 1],
        train_size=[None, 10],
        schedule=["steps", "cosine"],
        epochs=[1, 2],
    )
    runs += grid(
        data=["digits", "cifar100"], augment=[True, False], dropout=[0.0, 0.1], order="usual"
    )
    assert len({run.name for run in runs}) == len(runs) == len(set(runs))
    assert (
        Configuration(order="usual", seed=3, epochs=2).name
        == "cifar10-resnet20-usual-2epochs-seed3"
    )


def test_grid():
    runs = grid(order=["usual", "ic"], rate=[0.0, 0.1], seed=range(2), epochs=5)
    values = [(run.seed, run.order, run.rate) for run in runs]
    assert values == [
        (s, o, r)
        for s in (0, 1)
        for o, r in (("usual", 0.0), ("relu-ic-conv", 0.0), ("relu-ic-conv", 0.1))
    ]
    assert all(run.epochs == 5 for run in runs)
    with pytest.raises(
        ValueError, match=r"did you mean 'rate'\? Received: the name of an argument='rat'"
    ):
        grid(rat=0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"data": "cifar"},
            (
                r"`data` must be one of 'digits', 'cifar10', 'cifar100'; did you mean 'cifar10'\?"
                r" Received: data='cifar'"
            ),
        ),
        (
            {"order": "relu-conv-ic"},
            r"did you mean 'relu-ic-conv'\? Received: order='relu-conv-ic'",
        ),
        ({"order": None}, r"`order` must be one of .* Received: order=None"),
        (
            {"optimizer": "rmsprop"},
            r"`optimizer` must be one of 'adam', 'sgd'\. Received: optimizer='rmsprop'",
        ),
        ({"rate": 1.0}, r"`rate` must be a number in \[0, 1\).*Received: rate=1.0"),
        ({"rate": float("nan")}, r"Received: rate=nan"),
        ({"dropout": -0.1, "order": "usual"}, r"Received: dropout=-0.1"),
        (
            {"dropout": 0.1},
            r"`dropout` is for the order \"usual\"; .* Received: dropout=0.1 with order='ic'",
        ),
        (
            {"dropout": 0.1, "rate_depth": "linear", "rates": (0, 0.1)},
            r"`dropout` is for the order \"usual\"; .* Received: dropout=0.1 with order='ic'",
        ),
        (
            {"rate": 0.5, "rate_depth": "rising"},
            r"`rate` must be below 0.5 where it rises or falls to twice itself. Received: rate=0.5",
        ),
        (
            {"rates": (0.1, 0.2)},
            r"`rates` is for the depths .* Received: rates=\(0.1, 0.2\) with rate_depth='uniform'",
        ),
        (
            {"rate_depth": "linear"},
            r"`rates` must be a tuple of the first rate and the last .* Received: rates=None",
        ),
        ({"rate_depth": "linear", "rates": (0.1,)}, r"Received: rates=\(0.1,\)"),
        (
            {"rate_depth": "stages", "rates": ()},
            r"`rates` must be a tuple of one rate or more .* Received: rates=\(\)",
        ),
        (
            {"rate_depth": "stages", "rates": (0.1, 1)},
            r"`rates` must be numbers in \[0, 1\).* Received: rates=1",
        ),
        (
            {"validation": 1},
            (
                r"`validation` must be a number in \[0, 1\), the share of images. Received:"
                r" validation=1"
            ),
        ),
        ({"seed": 2**19}, r"Received: seed=524288"),
        ({"seed": True}, r"Received: seed=True"),
        ({"epochs": 0}, r"Received: epochs=0"),
        ({"batch": 1.5}, r"Received: batch=1.5"),
        (
            {"train_size": 0},
            r"`train_size` must be None or an integer above 0. Received: train_size=0",
        ),
        ({"learning_rate": 0}, r"Received: learning_rate=0"),
        ({"weight_decay": -1}, r"Received: weight_decay=-1"),
        ({"augment": "yes"}, r"Received: augment='yes'"),
        ({"recalibrate": 1}, r"Received: recalibrate=1"),
    ],
)
def test_bad_input(values, message):
    with pytest.raises(ValueError, match=message):
        Configuration(**values)
