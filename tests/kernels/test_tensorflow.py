"""What only the TensorFlow kernel has to get right."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

from keras_ic.kernels import tensorflow as kernel

pytestmark = pytest.mark.tensorflow_only
SEED = np.array([3, 5], "uint32")


def operations(kind):
    """The operations of that kind that were traced so far."""
    graph = tf.compat.v1.get_default_graph()
    return [operation for operation in graph.get_operations() if operation.type == kind]


def train(x, axis=-1):
    return kernel.train(x, None, None, None, 0.0, axis, 1e-3)


@pytest.mark.parametrize("unknown", ["nothing", "batch", "all but channels"])
@pytest.mark.parametrize(
    ("shape", "axis", "given"),
    [
        ((6, 5), -1, (1, 6, 1, 5)),
        ((4, 3, 5), -1, (4, 3, 1, 5)),
        ((4, 3, 2, 5), -1, (4, 3, 2, 5)),
        ((2, 3, 2, 4, 5), -1, (2, 3, 8, 5)),
        ((2, 3, 2, 4, 3, 5), -1, (2, 3, 24, 5)),
        ((4, 5, 3), 1, (4, 5, 3, 1)),
        ((4, 5, 3, 2), 1, (4, 5, 3, 2)),
        ((2, 5, 3, 2, 4), 1, (2, 5, 3, 8)),
    ],
)
def test_the_fused_op_never_gets_all_positions_as_its_batch(shape, axis, given, unknown):
    seen = {}

    def traced(x):
        outputs = train(x, axis)
        (operation,) = operations("FusedBatchNormV3")
        seen["format"] = operation.get_attr("data_format")
        return *outputs, tf.shape(operation.inputs[0])

    channel = axis % len(shape)
    known = {
        "nothing": shape,
        "batch": (None, *shape[1:]),
        "all but channels": [size if i == channel else None for i, size in enumerate(shape)],
    }[unknown]
    function = tf.function(traced, input_signature=[tf.TensorSpec(known)], autograph=False)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    y, mean, variance, reached = function(x)
    assert tuple(reached.numpy()) == given
    assert seen["format"] == (b"NHWC" if channel == len(shape) - 1 else b"NCHW")
    assert y.shape == shape
    others = tuple(i for i in range(len(shape)) if i != channel)
    np.testing.assert_allclose(mean, x.mean(others), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, x.var(others), rtol=1e-5)  # not Bessel's


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3)])
def test_the_variance_of_one_value_is_zero_whatever_the_op_says(shape, monkeypatch):
    def on_a_gpu(**arguments):
        nan = tf.fill([3], np.nan)
        return arguments["x"], tf.zeros([3]), nan, nan, nan, nan

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", on_a_gpu)
    np.testing.assert_array_equal(train(tf.ones(shape))[2], np.zeros(3))


def test_xla_is_told_from_a_graph_also_in_what_a_graph_calls():
    told = []

    def step(x):
        def inner():
            told.append(kernel._under_xla())
            return x

        inner()
        return tf.cond(x[0] > 0, tf.function(inner, autograph=False), lambda: x)

    for compiled in (True, False):
        tf.function(step, jit_compile=compiled, autograph=False)(tf.ones([1]))
    assert told == [True, True, False, False]
    assert not kernel._under_xla()


@pytest.mark.parametrize("known", [True, False])
def test_masks_of_more_values_than_int32_counts(known):
    # Shapes only: nothing so large is made.
    @tf.function(autograph=False)
    def shapes(rows):
        shape = (2**16, 2**8, 2**8) if known else (rows, 2**8, 2**8)
        kernel.draw(shape, 0.1, SEED)
        (drawn,) = operations("StatelessRandomUniformFullIntV2")
        return drawn.inputs[0], operations("Reshape")[-1].inputs[1]

    words, mask = shapes(tf.constant(2**16))
    assert np.prod(words, dtype="int64") == 2**31
    assert tuple(mask.numpy()) == (2**16, 2**8, 2**8)


@pytest.mark.parametrize("shape", [(6, 5), (6, 16), (6, 3, 7), (6, 4, 4, 2)])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_part_of_the_batch_draws_what_one_device_draws_for_it(shape, compiled):
    whole = kernel.draw(shape, 0.5, SEED)
    part = tf.function(
        lambda first: kernel.draw((shape[0] - 2, *shape[1:]), 0.5, SEED, first),
        jit_compile=compiled,
    )
    np.testing.assert_array_equal(part(tf.constant(2.0)), whole[2:])
    np.testing.assert_array_equal(kernel.draw(shape, 0.5, SEED, 0), whole)
