"""The gradient of the training loss, against central differences in float64; where not all of a
network is float64, against the reference kernels.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ic import kernels
from keras_ic.kernels import reference
from tests.autodiff import HAS_FLOAT64, run, to_numpy
from tests.conformance.registry import with_policy

LENGTH = 3e-5  # of a step in all weights together: over a long one, activations change sign
# On torch, Keras's `matmul` and `mean` go through float32, whatever the dtype: the loss is too
# coarse for differences.
BY_DIFFERENCES = HAS_FLOAT64 and keras.backend.backend() != "torch"


def loss_of(model, x, y):
    """The loss of a batch as a function of the trainable weights, with the same masks at every
    call, and the values of these.
    """
    generators = [
        layer.seed_generator
        for layer in model._flatten_layers()
        if getattr(layer, "seed_generator", None) is not None
    ]
    states = [(generator.state, ops.convert_to_numpy(generator.state)) for generator in generators]
    trainable = [variable.value for variable in model.trainable_variables]
    others = [ops.convert_to_numpy(variable) for variable in model.non_trainable_variables]

    def loss(*values):
        # On torch, Keras's own Dropout draws from a generator of the whole process.
        keras.utils.set_random_seed(0)
        for state, value in states:
            state.assign(value)
        for variable, value in zip(model.non_trainable_variables, others, strict=True):
            variable.assign(value)
        with keras.StatelessScope(
            state_mapping=list(zip(model.trainable_variables, values, strict=True))
        ):
            logits = model(x, training=True)
            return [
                ops.mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))
                + sum(model.losses, 0.0)
            ]

    return loss, trainable


def test_gradients(entry, monkeypatch):
    x, y = entry.samples(8)
    model = entry.built()
    if HAS_FLOAT64:
        keras.config.set_dtype_policy("float64")
        keras.config.set_floatx("float64")
        model = with_policy(model, "float64")
    x = x if entry.takes_ids else ops.cast(x, keras.config.floatx())
    loss, values = loss_of(model, x, y)
    one = np.ones((), keras.config.floatx())
    _, gradients = run(loss, values, one, "eager")
    # A gradient a kernel.
    assert all(np.any(gradient) for gradient in gradients if gradient.ndim > 1)
    if BY_DIFFERENCES:
        random = np.random.default_rng(1)
        step = LENGTH / np.sqrt(sum(gradient.size for gradient in gradients))
        direction = [random.choice([-1.0, 1.0], gradient.shape) for gradient in gradients]
        moved = [
            [
                to_numpy(value) + sign * step * part
                for value, part in zip(values, direction, strict=True)
            ]
            for sign in (-1, 1)
        ]
        losses = [to_numpy(loss(*map(ops.convert_to_tensor, weights))[0]) for weights in moved]
        difference = (losses[1] - losses[0]) / (2 * step)
        slope = sum(
            np.sum(gradient * part) for gradient, part in zip(gradients, direction, strict=True)
        )
        size = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
        assert difference == pytest.approx(slope, rel=1e-4, abs=1e-4 * size)
    else:
        for name in ("train", "normalize", "moments"):
            monkeypatch.setattr(kernels, name, getattr(reference, name))
        _, expected = run(loss, values, one, "eager")
        for gradient, other in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(
                gradient, other, rtol=1e-3, atol=1e-4 * max(np.abs(other).max(), 1e-3)
            )
