"""What of a given model's compilation the new model takes over."""

import keras
import pytest

import keras_ic


def decaying(exclude):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, name="first"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.ReLU(),
            keras.layers.Dense(2, name="last"),
        ]
    )
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(**exclude(model))
    model.compile(optimizer, "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def decays(model, name):
    variable = next(each for each in model.trainable_variables if each.path.endswith(name))
    return model.optimizer._use_weight_decay(variable)


@pytest.mark.filterwarnings("ignore:Moving statistics are as initialized")
@pytest.mark.parametrize("change", [keras_ic.rewrite, keras_ic.fold])
def test_what_is_excluded_from_weight_decay_by_name_stays_so(change):
    new = change(decaying(lambda model: {"var_names": ["bias", "gamma", "beta"]}))
    assert decays(new, "last/kernel") and not decays(new, "last/bias")
    assert not any(decays(new, each.path) for each in new.trainable_variables if "ic" in each.path)


def test_what_is_excluded_as_a_variable_stays_so_or_is_told():
    model = decaying(
        lambda model: {"var_list": [model.get_layer("last").bias, model.get_layer("bn").gamma]}
    )
    with pytest.warns(UserWarning, match=r"1 variables .* Received: .*bn/gamma"):
        new = keras_ic.rewrite(model)
    assert decays(new, "last/kernel") and not decays(new, "last/bias")
