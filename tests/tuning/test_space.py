import dataclasses

import keras_tuner
import pytest

from keras_ic.training import TrainingConfig
from keras_ic.training.rate_schedule import rates_over_depth
from keras_ic.tuning import SearchSpace

EVERYTHING = SearchSpace(
    orders=("usual", "ic", "ic-conv-relu", "conv-relu-ic"),
    rate_schedules=("constant", "anneal", "grow"),
)


def values_of(space, **given):
    hp = keras_tuner.HyperParameters()
    hp.values.update(given)
    chosen = space.choose(hp)
    return hp.values, chosen


def test_what_a_trial_has_no_use_for_is_absent():
    values, chosen = values_of(EVERYTHING, order="conv-bn-relu")
    assert (
        set(values) == {"order", "learning_rate", "schedule"}
        and chosen["order"] == "conv-bn-relu"
        and chosen["rate"] == 0
    )
    names = {
        "uniform": {"rate"},
        "linear": {"rate_first", "rate_last"},
        "stages": {"rate_1", "rate_2", "rate_3"},
    }
    for depth, of_depth in names.items():
        values, chosen = values_of(EVERYTHING, order="conv-relu-ic", rate_depth=depth)
        assert (
            set(values)
            == {"order", "learning_rate", "schedule", "rate_depth", "rate_schedule"} | of_depth
        )
        assert TrainingConfig(**chosen).order == "conv-relu-ic"


def test_what_is_chosen_is_what_is_run():
    values, chosen = values_of(
        SearchSpace(),
        rate_depth="stages",
        rate_1=0.0,
        rate_2=0.075,
        rate_3=0.3,
        rate_schedule="anneal",
        schedule="cosine",
    )
    made = TrainingConfig(**chosen)
    assert (made.rate_depth, made.rates, made.rate_schedule, made.schedule) == (
        "stages",
        (0, 0.075, 0.3),
        "anneal",
        "cosine",
    )
    assert made.learning_rate == values["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    "given", [{"rate_depth": "linear", "rates": (0, 0.1)}, {"rate_depth": "rising"}]
)
def test_the_rate_takes_the_place_of_the_recipes(given):
    _, chosen = values_of(SearchSpace(rate=0.2, depths="uniform"))
    made = TrainingConfig(**{**TrainingConfig(**given).to_dict(), **chosen})
    assert (made.rate, made.rate_depth, made.rates) == (0.2, "uniform", None)


def test_where_one_value_is_possible_there_is_nothing_to_choose():
    space = SearchSpace(
        rate=0.1,
        depths="linear",
        rate_schedules="grow",
        learning_rate=(0.01, 0.01),
        schedules=["one-cycle"],
    )
    values, chosen = values_of(space)
    assert values == {}
    made = TrainingConfig(**chosen)
    assert (made.rates, made.rate_schedule, made.learning_rate, made.schedule) == (
        (0.1, 0.1),
        "grow",
        0.01,
        "one-cycle",
    )


def test_candidates_of_a_rate():
    hp = keras_tuner.HyperParameters()
    SearchSpace(depths="uniform").choose(hp)
    (rate,) = [each for each in hp.space if each.name == "rate"]
    assert rate.values == [round(0.025 * step, 10) for step in range(13)]
    assert rate.default in list(rate.values) and rate.default == 0.05
    for low, high in ((0, 0.04), (0.1, 0.3), (0, 0.2)):
        hp = keras_tuner.HyperParameters()
        SearchSpace(rate=(low, high), rate_step=0.03, depths="uniform", learning_rate=1).choose(hp)
        assert hp.space[0].default in list(hp.space[0].values), "or a grid search has no beginning"


def test_the_same_from_its_dictionary():
    assert SearchSpace(**EVERYTHING.to_dict()) == EVERYTHING != SearchSpace()
    assert SearchSpace(orders="ic") == SearchSpace() and SearchSpace(rate=0.1) == SearchSpace(
        rate=(0.1, 0.1)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": (0, 1)}, r"`rate` must be one or two numbers in \[0, 1\).*Received: rate=1"),
        ({"rate": -0.1}, r"Received: rate=-0.1"),
        ({"rate": (0.2, 0.1)}, r"the lower first. Received: rate=\(0.2, 0.1\)"),
        ({"rate": (0, 0.1, 0.2)}, r"Received: rate=\(0, 0.1, 0.2\)"),
        ({"rate": ()}, r"Received: rate=\(\)"),
        ({"rate": "small"}, r"Received: rate='small'"),
        ({"rate_step": 0}, r"`rate_step` must be a number above 0. Received: rate_step=0"),
        (
            {"learning_rate": 0},
            r"`learning_rate` must be one or two numbers above 0.*Received: learning_rate=0",
        ),
        ({"stages": 1}, r"`stages` must be an integer above 1. Received: stages=1"),
        (
            {"orders": "relu-conv-ic"},
            r"did you mean 'relu-ic-conv'\? Received: orders='relu-conv-ic'",
        ),
        ({"orders": ()}, r"`orders` must be one or more of .* Received: orders=\(\)"),
        ({"depths": ("uniform", "rising")}, r"Received: depths='rising'"),
        ({"schedules": "cosin"}, r"did you mean 'cosine'\? Received: schedules='cosin'"),
        ({"rate_schedules": 3}, r"Received: rate_schedules=3"),
    ],
)
def test_bad_arguments(values, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(**values)


def names_of(space):
    hp = keras_tuner.HyperParameters()
    space.choose(hp)
    return [each.name for each in hp.space]


@pytest.mark.parametrize("stages", [2, 3, 4, 5])
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 9])
def test_every_rate_sets_a_layer(stages, layers):
    """Each hyperparameter of a rate, changed alone, changes the rate of a layer."""
    space = SearchSpace(stages=stages, learning_rate=1e-3, schedules="cosine").for_layers(layers)
    for depth in space.depths:
        names = [name for name in names_of(space) if name not in ("rate_depth", "rate_schedule")]
        values, chosen = values_of(space, rate_depth=depth)
        before = rates_over_depth(TrainingConfig(**chosen), layers)
        for name in names:
            if name in values:
                _, changed = values_of(space, **{**values, "rate_depth": depth, name: 0.3})
                assert rates_over_depth(TrainingConfig(**changed), layers) != before, name


def test_depths_that_come_to_the_same_are_one():
    assert SearchSpace().for_layers(1).depths == ("uniform",)
    assert SearchSpace(depths="linear").for_layers(1).depths == ("uniform",)
    assert SearchSpace().for_layers(2).depths == ("uniform", "linear")
    assert SearchSpace(depths="stages").for_layers(2) == SearchSpace(depths="stages", stages=2)
    assert SearchSpace().for_layers(3) == SearchSpace()
    one_rate = SearchSpace(rate=0.1, learning_rate=1e-3, schedules="cosine")
    assert names_of(one_rate.for_layers(9)) == ["rate_schedule"]
    assert names_of(dataclasses.replace(one_rate, rate=0).for_layers(9)) == []


def test_a_range_below_one_step_has_nothing_to_choose():
    space = SearchSpace(rate=(0.05, 0.06), depths="uniform", learning_rate=1, schedules="cosine")
    values, chosen = values_of(space, rate_schedule="constant")
    assert "rate" not in values and chosen["rate"] == 0.05
