import keras
import numpy as np
import pytest

from keras_ic.training import TrainingConfig, network, optimizer
from keras_ic.training.optimizers import compile_for


def small(**values):
    return TrainingConfig(**{"data": "digits", "model": "small", **values})


@pytest.mark.parametrize("steps", [10, 1000])
def test_learning_rates(steps):
    def learning_rates(**values):
        model = network(small(**values), (8, 8, 1), 10)
        made = optimizer(small(**values), steps, model)
        schedule = made._learning_rate
        return np.array(
            [
                float(schedule(step)) if callable(schedule) else float(made.learning_rate)
                for step in range(steps)
            ]
        )

    expected = np.repeat([1e-2, 1e-3, 1e-4, 1e-5], np.array([4, 2, 2, 2]) * steps // 10)
    np.testing.assert_allclose(learning_rates(learning_rate=1e-2), expected, rtol=1e-5)
    np.testing.assert_allclose(learning_rates(schedule="constant"), 1e-3, rtol=1e-6)
    cosine = 1e-3 * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    np.testing.assert_allclose(learning_rates(schedule="cosine"), cosine, rtol=1e-3, atol=1e-8)
    cycle = learning_rates(schedule="one-cycle")
    assert (
        cycle[0] == pytest.approx(1e-3 / 25)
        and np.argmax(cycle) == round(0.3 * steps)
        and cycle.max() == pytest.approx(1e-3)
    )
    assert cycle[-1] < 0.06e-3 and np.all(np.diff(cycle)[round(0.3 * steps) :] < 0)


def test_decoupled_weight_decay_is_for_kernels_alone():
    configuration = small(decoupled_weight_decay=0.5, schedule="constant", learning_rate=0.1)
    model = network(configuration, (8, 8, 1), 10)
    made = optimizer(configuration, 10, model)
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    made.apply(
        [keras.ops.zeros(variable.shape) for variable in model.trainable_variables],
        model.trainable_variables,
    )
    for variable, value in zip(model.trainable_variables, before, strict=True):
        factor = 0.95 if "kernel" in variable.name else 1.0
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), factor * value, rtol=1e-6)


def test_warm_up_and_linear_scaling():
    config = small(
        schedule="cosine",
        warmup_epochs=2,
        epochs=10,
        learning_rate=0.1,
        linear_scaling=True,
        batch=512,
    )
    schedule = optimizer(config, 100, network(config, (8, 8, 1), 10))._learning_rate
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 10, 20)], [0, 0.1, 0.2])
    assert float(schedule(99)) < 1e-3


@pytest.mark.parametrize("is_one_hot", [True, False])
def test_the_cross_entropy_has_neither_penalty_nor_smoothing(is_one_hot):
    config = small(label_smoothing=0.1 if is_one_hot else 0.0, weight_decay=0.1)
    model = network(config, (8, 8, 1), 12)
    compile_for(model, config, 10, is_one_hot)
    x, y = np.random.default_rng(0).random((6, 8, 8, 1), "float32"), np.arange(6)
    logits = np.asarray(keras.ops.convert_to_numpy(model(x, training=False)), "float64")
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(6), y])
    result = model.evaluate(x, np.eye(12)[y] if is_one_hot else y, verbose=0, return_dict=True)
    assert result["cross_entropy"] == pytest.approx(expected, rel=1e-4)
    assert result["loss"] > result["cross_entropy"] + 0.1
    assert {"accuracy", "top5"} <= set(result)
