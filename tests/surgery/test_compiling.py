"""What of a given model's compilation the new model takes over."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from tests.surgery import models


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


def test_unregistered_losses_survive_compilation():
    def mine(expected, actual):
        return keras.ops.mean(keras.ops.abs(expected - actual))

    model = models.small_convolutional()
    model.compile("sgd", mine, metrics=[mine, keras.metrics.MeanSquaredError(name="error")])
    new = keras_ic.rewrite(model)
    result = new.evaluate(np.ones((2, 8, 8, 3)), np.zeros((2, 5)), verbose=0, return_dict=True)
    assert set(result) == {"loss", "mine", "error"}


def test_mixed_precision_and_a_compile_of_its_own():
    keras.config.set_dtype_policy("mixed_float16")
    model = models.small_convolutional()
    model.compile("sgd", "mse", jit_compile=False)
    new = keras_ic.rewrite(model)
    assert isinstance(new.optimizer, keras.optimizers.LossScaleOptimizer)
    assert (
        isinstance(new.optimizer.inner_optimizer, keras.optimizers.SGD)
        and new.dtype_policy.name == "mixed_float16"
    )

    class Own(keras.Model):
        def compile(self, *args, more=None, **kwargs):
            super().compile(*args, **kwargs)

    inputs = keras.Input((4,))
    own = Own(inputs, layers.Dense(2)(layers.Dense(4)(inputs)))
    own.compile("sgd", "mse", more=1)
    with pytest.warns(UserWarning, match=r"not compiled.*Received.*type Own"):
        assert not keras_ic.rewrite(own).compiled


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.02


@pytest.mark.parametrize("rate", [Halving(), lambda: 0.02], ids=["schedule", "function"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_learning_rates_that_have_no_configuration(rate, policy):
    keras.config.set_dtype_policy(policy)
    model = models.small_convolutional()
    model.compile(keras.optimizers.Adam(rate, beta_1=0.7), "mse", jit_compile=False)
    for new in (keras_ic.rewrite(model), keras_ic.fold(models.randomize(model))):
        pairs = [
            (made.optimizer, getattr(made.optimizer, "inner_optimizer", made.optimizer))
            for made in (model, new)
        ]
        assert type(pairs[0][0]) is type(pairs[1][0]) and pairs[0][1] is not pairs[1][1]
        assert pairs[1][1].beta_1 == 0.7 and float(pairs[1][1].learning_rate) == pytest.approx(0.02)
        assert pairs[1][1]._learning_rate is rate and pairs[0][1]._learning_rate is rate


def test_losses_without_a_configuration_are_passed_on_and_such_metrics_leave_the_model_uncompiled():
    class Weighted(keras.losses.Loss):
        def __init__(self, weight):
            super().__init__()
            self.weight = weight

        def call(self, expected, actual):
            return self.weight * keras.ops.mean(keras.ops.abs(expected - actual), -1)

    class Above(keras.metrics.Mean):
        def __init__(self, threshold):
            super().__init__(name="above")
            self.threshold = threshold

    model = models.small_convolutional()
    x, y = np.ones((2, 8, 8, 3)), np.zeros((2, 5))
    model.compile("sgd", Weighted(3.0))
    new = keras_ic.rewrite(model, weights="preserve")
    assert new.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-3)
    model.compile("sgd", "mse", metrics=[Above(0.5)])
    models.randomize(model)
    for function in (keras_ic.rewrite, keras_ic.fold):
        with pytest.warns(
            UserWarning,
            match=(
                r"not compiled, as above \(Above\) cannot be rebuilt.*compile it. Received:"
                r" model 'small'"
            ),
        ) as warned:
            assert not function(model).compiled
        assert [
            warning.filename for warning in warned if "not compiled" in str(warning.message)
        ] == [__file__]
