"""The copy of a layer has the very objects that the layer was configured with."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from tests.surgery import models


def leaky_relu(x):
    """Has the name of one of Keras's own."""
    return keras.ops.maximum(x, 0.01 * x)


class Callable:
    def __call__(self, x):
        return keras.ops.minimum(x, 0.5)


class Clipped(keras.constraints.Constraint):
    def __call__(self, w):
        return keras.ops.clip(w, -0.5, 0.5)


class Mine(keras.regularizers.Regularizer):
    def __call__(self, x):
        return 0.5 * keras.ops.sum(x)


class Drawn(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return 0.1 * keras.random.normal(shape, dtype=dtype)


slope = 0.3
FUNCTIONS = {
    "of the name of another": leaky_relu,
    "lambda": lambda x: keras.ops.maximum(x, slope * x),
    "partial": functools.partial(keras.activations.relu, negative_slope=0.3),
    "object": Callable(),
}
HOLDERS = {
    "Conv2D": lambda f: layers.Conv2D(4, 3, padding="same", activation=f),
    "Activation": lambda f: layers.Activation(f),
    "Lambda": lambda f: layers.Lambda(f),
    "TimeDistributed": lambda f: layers.TimeDistributed(layers.Dense(4, activation=f)),
    "a model inside": lambda f: layers.TimeDistributed(
        keras.Sequential([keras.Input((6, 3)), layers.Dense(4, activation=f)])
    ),
    "a layer that is called in training": lambda f: functools.partial(
        keras.Sequential([keras.Input((6, 6, 3)), layers.Dense(4, activation=f)]), training=True
    ),
}


def model_with(layer, shape=(6, 6, 3)):
    inputs = keras.Input(shape)
    x = layers.BatchNormalization()(layers.Dense(3)(inputs))
    return models.randomize(keras.Model(inputs, layers.Dense(2)(layer(x))))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_functions(holder, function):
    model = model_with(HOLDERS[holder](FUNCTIONS[function]))
    unchanged = models.Unchanged(model) if function == "of the name of another" else None
    for new in (keras_ic.rewrite(model, weights="preserve"), keras_ic.fold(model)):
        models.assert_same_function(model, new, 1e-5)
    if unchanged:
        unchanged.check()


@pytest.mark.parametrize(
    "function, wrapper",
    [
        ("of the name of another", lambda layer: layer),
        ("lambda", lambda layer: layer),
        ("of the name of another", layers.Bidirectional),  # Keras takes no lambda there.
    ],
)
def test_functions_of_recurrent_layers(function, wrapper):
    cell = layers.LSTM(4, activation=FUNCTIONS[function], return_sequences=True)
    model = model_with(wrapper(cell), (6, 3))
    models.assert_same_function(model, keras_ic.rewrite(model, weights="preserve"), 1e-5)


def test_both_functions_of_one_name_in_one_network():
    model = model_with(
        keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                layers.Dense(4, activation=leaky_relu),
                layers.Dense(4, activation="leaky_relu"),
            ]
        )
    )
    models.assert_same_function(model, keras_ic.rewrite(model, weights="preserve"), 1e-5)


def test_regularizers_constraints_and_initializers():
    regularizer, constraint = Mine(), Clipped()
    settings = {"kernel_regularizer": regularizer, "kernel_constraint": constraint}
    layer = layers.Dense(4, kernel_initializer=Drawn(), name="mine", **settings)
    attention = layers.MultiHeadAttention(1, 2, name="attention", **settings)
    inputs = keras.Input((6, 3))
    x = layer(layers.BatchNormalization()(layers.Dense(3)(inputs)))
    model = keras.Model(inputs, attention(x, x))
    new = keras_ic.rewrite(model)
    for name in ("mine", "attention"):
        made = new.get_layer(name)
        part = made if name == "mine" else made.query_dense
        assert part.kernel_regularizer is regularizer and part.kernel_constraint is constraint
    assert type(new.get_layer("mine").kernel_initializer) is Drawn
    assert len(new.losses) == len(model.losses)


def test_the_same_initializer_draws_rebuilt():
    model = model_with(layers.Dense(4, kernel_initializer="he_normal", name="drawn"))
    new = keras_ic.rewrite(model)
    one, other = (made.get_layer("drawn").kernel.numpy() for made in (model, new))
    assert np.abs(one - other).max() > 0


def test_a_configuration_that_asks_for_the_name():
    @keras.saving.register_keras_serializable(package="test")
    class Named(layers.Layer):
        def __init__(self, function="leaky_relu", **kwargs):
            super().__init__(**kwargs)
            self.function = {"leaky_relu": leaky_relu}[function]

        def call(self, inputs):
            return self.function(inputs)

        def get_config(self):
            return {**super().get_config(), "function": self.function.__name__}

    model = model_with(Named())
    models.assert_same_function(model, keras_ic.rewrite(model, weights="preserve"), 1e-5)


def test_a_constructor_that_uses_itself_is_not_given_the_other_one():
    @keras.saving.register_keras_serializable(package="test")
    class Own(layers.Layer):
        def __init__(self, factor=2.0, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor
            self.function = lambda x: (self, x * self.factor)

        def call(self, inputs):
            return self.function(inputs)[1]

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    model = model_with(Own(name="own"))
    new = keras_ic.rewrite(model, weights="preserve").get_layer("own")
    assert new.function(np.ones(1))[0] is new
