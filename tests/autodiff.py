"""Values and gradients of a function of tensors, whichever the backend, in each way the backend has
to run it.
"""

import os

import keras
import numpy as np
from keras import ops

MODES = {
    "tensorflow": ["eager", "graph", "xla"],
    "jax": ["eager", "jit"],
    "torch": ["eager", "compile"],
}[keras.backend.backend()]
# JAX has float64 only where the whole process asks for it, as `make test` does once more for these
# tests.
HAS_FLOAT64 = keras.backend.backend() != "jax" or os.environ.get("JAX_ENABLE_X64") == "1"


def run(function, arguments, cotangents, mode):
    """The outputs of `function(*arguments)` and the gradients of `sum(outputs[0] * cotangents)`, as
    numpy arrays.
    """
    arguments = [ops.convert_to_tensor(a) for a in arguments]
    cotangents = ops.convert_to_tensor(cotangents)
    outputs, gradients = _RUNNERS[keras.backend.backend()](function, arguments, cotangents, mode)
    return [to_numpy(o) for o in outputs], [to_numpy(g) for g in gradients]


def to_numpy(tensor):
    """As a numpy array; bfloat16, which numpy lacks, as float32."""
    if keras.backend.standardize_dtype(tensor.dtype) in ("bfloat16", "float16"):
        tensor = ops.cast(tensor, "float32")
    return np.array(ops.convert_to_numpy(tensor))


def _tensorflow(function, arguments, cotangents, mode):
    import tensorflow as tf

    def step(*arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs = function(*arguments)
            loss = tf.reduce_sum(tf.cast(outputs[0], cotangents.dtype) * cotangents)
        return outputs, tape.gradient(loss, arguments)

    if mode != "eager":
        step = tf.function(step, jit_compile=mode == "xla", autograph=False)
    return step(*arguments)


def _jax(function, arguments, cotangents, mode):
    import jax

    def step(*arguments):
        def loss(*arguments):
            outputs = function(*arguments)
            return (outputs[0].astype(cotangents.dtype) * cotangents).sum(), outputs

        gradients, outputs = jax.grad(loss, argnums=range(len(arguments)), has_aux=True)(*arguments)
        return outputs, gradients

    return (jax.jit(step) if mode == "jit" else step)(*arguments)


def _torch(function, arguments, cotangents, mode):
    import torch

    if mode == "compile":
        function = torch.compile(function, backend="aot_eager")
    arguments = [a.detach().clone().requires_grad_() for a in arguments]
    outputs = function(*arguments)
    loss = (outputs[0].to(cotangents.dtype) * cotangents).sum()
    return [o.detach() for o in outputs], torch.autograd.grad(loss, arguments)


_RUNNERS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
