import dataclasses

import pytest

from keras_ic.training import TrainingConfig, grid, preset


def test_the_defaults_are_the_reference_recipe():
    made = TrainingConfig()
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
    assert TrainingConfig(order="ic") == TrainingConfig(order="relu-ic-conv")
    usual = TrainingConfig(order="conv-bn-relu")
    assert usual == TrainingConfig(
        order="conv-bn-relu",
        rate=0.3,
        rate_schedule="anneal",
        rate_depth="rising",
        classifier_ic=False,
    )
    assert usual.rate == 0.0 and usual != TrainingConfig(order="conv-bn-relu", dropout=0.05)
    assert (
        TrainingConfig(data="digits").augment is False
        and TrainingConfig(data="digits", augment=True).augment is True
    )
    assert TrainingConfig(**usual.to_dict()) == usual


def test_rates_over_the_depth():
    made = TrainingConfig(rate_depth="stages", rates=[0, 0.1, 0.2], rate=0.7)
    assert made.rates == (0, 0.1, 0.2) and made.rate == pytest.approx(0.1)
    assert (
        made
        == TrainingConfig(**made.to_dict())
        == grid(rate_depth="stages", rates=[(0, 0.1, 0.2)])[0]
    )
    assert TrainingConfig(
        order="conv-bn-relu", rate_depth="linear", rates=(0, 0.1)
    ) == TrainingConfig(order="conv-bn-relu")


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().rate = 0.1


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
        data=["digits", "cifar100"], augment=[True, False], dropout=[0.0, 0.1], order="conv-bn-relu"
    )
    assert len({run.name for run in runs}) == len(runs) == len(set(runs))
    assert (
        TrainingConfig(order="conv-bn-relu", seed=3, epochs=2).name
        == "cifar10-resnet20-conv-bn-relu-2epochs-seed3"
    )


def test_two_rates_that_differ_in_a_late_digit_have_folders_of_their_own():
    names = {TrainingConfig(rate=rate).name for rate in (0.05, 0.0500001, 0.05000001)}
    assert len(names) == 3


def test_the_network_follows_the_data():
    assert TrainingConfig().model == "resnet20"
    assert TrainingConfig(data="imagenet2012").model == "resnet50-v1.5"
    assert TrainingConfig(data="imagenet2012").image_size == 224


def test_a_batch_is_shared_out_evenly_or_refused():
    assert TrainingConfig(batch=96, accumulate=3).batch_of_replica(4) == 24
    with pytest.raises(ValueError, match=r"4 x 3; 96 would be\. Received: batch=100"):
        TrainingConfig(batch=100, accumulate=3).batch_of_replica(4)


def test_grid_of_a_preset():
    runs = grid("small", data="imagenet2012", epochs=[1, 3], model="MobileNetV2")
    assert runs == [preset("small", epochs=epochs, model="MobileNetV2") for epochs in (1, 3)]


def test_grid():
    runs = grid(order=["usual", "ic"], rate=[0.0, 0.1], seed=range(2), epochs=5)
    values = [(run.seed, run.order, run.rate) for run in runs]
    assert values == [
        (s, o, r)
        for s in (0, 1)
        for o, r in (("conv-bn-relu", 0.0), ("relu-ic-conv", 0.0), ("relu-ic-conv", 0.1))
    ]
    assert all(run.epochs == 5 for run in runs)
    with pytest.raises(
        ValueError, match=r"did you mean 'rate'\? Received: the name of an option='rat'"
    ):
        grid(rat=0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
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
        ({"dropout": -0.1, "order": "conv-bn-relu"}, r"Received: dropout=-0.1"),
        (
            {"dropout": 0.1},
            r"`dropout` is for the orders .* Received: dropout=0.1 with order=.relu-ic",
        ),
        (
            {"dropout": 0.1, "rate_depth": "linear", "rates": (0, 0.1)},
            r"`dropout` is for the orders .* Received: dropout=0.1 with order=.relu-ic",
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
            r"`rates` must be a number in \[0, 1\).* Received: rates=1",
        ),
        (
            {"validation": 1},
            (r"`validation` must be a number in \[0, 1\). Received: validation=1"),
        ),
        ({"seed": 2**19}, r"Received: seed=524288"),
        ({"seed": True}, r"Received: seed=True"),
        ({"epochs": 0}, r"Received: epochs=0"),
        ({"batch": 1.5}, r"Received: batch=1.5"),
        (
            {"train_size": 0},
            r"`train_size` must be an integer above 0. Received: train_size=0",
        ),
        ({"learning_rate": 0}, r"Received: learning_rate=0"),
        ({"weight_decay": -1}, r"Received: weight_decay=-1"),
        ({"augment": "yes"}, r"Received: augment='yes'"),
        ({"recalibrate": True}, r"`recalibrate` must be one of 'off', 'end', 'each'.*=True"),
        ({"model": 3}, r"`model` must be a string. Received: model=3"),
        ({"warmup_epochs": 1}, r"`warmup_epochs` is for the schedule cosine, .* Received: "),
        ({"accumulate": 0}, r"Received: accumulate=0"),
    ],
)
def test_bad_input(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**values)
