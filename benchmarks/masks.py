"""What a mask costs, drawn and put in, forward and backward: the layer's own way and others that
were tried.

    KERAS_BACKEND=tensorflow python -m benchmarks.masks --out benchmarks/results      # or jax

A tensor of 1,048,576 values at a rate of 0.05. Figures are nanoseconds a value above a step without
a mask, the fastest of many turns, since other work on the machine only ever adds to a time. "gaps"
draws the distances between dropped positions, geometric in distribution, sums them up, and writes
zeros there. "bytes" compares 8 random bits a value with a bound that 8 more, shared by 8 values,
raise by one as often as the rate needs: the rate is as exact, but values that share are no longer
quite independent. "compiled by XLA" is the layer's mask as an XLA cluster of its own.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_ic import kernels
from keras_ic.kernels.threshold import drop_threshold
from keras_ic.training.record import versions

BACKEND = keras.backend.backend()
SHAPE, RATE = (64, 32, 32, 16), 0.05
SIZE = math.prod(SHAPE)


def on_tensorflow():
    """By name, a function of a seed that takes a whole step."""
    import tensorflow as tf

    x, cotangents = (
        tf.constant(np.random.default_rng(seed).normal(size=SHAPE).astype("float32"))
        for seed in range(2)
    )

    @tf.custom_gradient
    def without(y, positions):
        def put(values):
            zeros = tf.zeros(tf.shape(positions))
            flat = tf.raw_ops.TensorScatterUpdate(
                tensor=tf.reshape(values, [-1]),
                indices=positions[:, None],
                updates=zeros,
                bad_indices_policy="IGNORE",
            )
            return tf.reshape(flat, SHAPE)

        return put(y), lambda gradient: (put(gradient), None)

    def gaps(y, seed):
        count = int(SIZE * RATE + 6 * math.sqrt(SIZE * RATE) + 8)
        uniform = tf.random.stateless_uniform([count], seed, minval=2.0**-24)
        return without(
            y, tf.cumsum(tf.cast(tf.math.log(uniform) / math.log1p(-RATE), tf.int32) + 1) - 1
        )

    def drawn(seed):
        return kernels.draw(SHAPE, RATE, seed)

    def in_bytes(y, seed):
        words = tf.random.stateless_uniform(
            [SIZE // 4 + SIZE // 32], seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )
        shared, *gates = tf.unstack(tf.reshape(tf.bitcast(words, tf.uint8), [9, SIZE // 8]))
        whole, part = divmod(drop_threshold(RATE), 256)
        keep = tf.stack(gates) >= tf.constant(whole, tf.uint8) + tf.cast(
            shared < tf.constant(part, tf.uint8), tf.uint8
        )
        return tf.where(tf.reshape(keep, SHAPE), y, 0.0)

    ways = {
        "no mask": lambda y, seed: y,
        "the layer's: Philox, select": lambda y, seed: tf.where(drawn(seed), y, 0.0),
        "Philox, multiply": lambda y, seed: y * tf.cast(drawn(seed), y.dtype),
        "stock dropout": lambda y, seed: tf.nn.experimental.stateless_dropout(y, RATE, seed),
        "gaps": gaps,
        "Philox, bytes": in_bytes,
        "Philox, select, compiled by XLA": tf.function(
            lambda y, seed: tf.where(drawn(seed), y, 0.0), jit_compile=True, autograph=False
        ),
    }

    def step_of(way):
        @tf.function(autograph=False)
        def step(seed):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = way(x * 1.1, seed)
            return tape.gradient(y, x, output_gradients=cotangents * 1.1)

        return lambda number: step(tf.constant([1, number])).numpy()

    return {name: step_of(way) for name, way in ways.items()}


def on_jax():
    """By name, a function of a seed that takes a whole step."""
    import jax
    import jax.numpy as jnp

    x, cotangents = (
        jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE).astype("float32"))
        for seed in range(2)
    )

    def from_words(words):
        halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(SHAPE)
        return halves >= jnp.uint16(drop_threshold(RATE))

    def philox(seed):
        key = jnp.concatenate([seed, jnp.zeros(2, jnp.uint32)])
        return from_words(
            jax.lax.rng_bit_generator(
                key, (SIZE // 2,), algorithm=jax.lax.RandomAlgorithm.RNG_PHILOX
            )[1]
        )

    masks = {
        "no mask": None,
        "the layer's: ThreeFry written out, kept as a byte": lambda seed: kernels.draw(
            SHAPE, RATE, seed
        ),
        "jax.random.bits": lambda seed: from_words(jax.random.bits(seed, (SIZE // 2,), jnp.uint32)),
        "rng_bit_generator, Philox": philox,
        "jax.random.bernoulli": lambda seed: jax.random.bernoulli(seed, 1 - RATE, SHAPE),
    }

    def step_of(mask):
        def loss(x, seed):
            y = x * 1.1
            return ((y if mask is None else jnp.where(mask(seed), y, 0.0)) * cotangents).sum()

        step = jax.jit(jax.grad(loss))
        return lambda number: step(x, jnp.array([1, number], jnp.uint32)).block_until_ready()

    return {name: step_of(mask) for name, mask in masks.items()}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--out", type=Path, help="folder for masks-BACKEND.json")
    arguments = parser.parse_args(argv)
    steps = {"tensorflow": on_tensorflow, "jax": on_jax}[BACKEND]()
    fastest = dict.fromkeys(steps, math.inf)
    for number in range(arguments.repeats):
        for name, step in steps.items():
            begin = time.perf_counter()
            step(number)
            fastest[name] = min(fastest[name], time.perf_counter() - begin)
    cost = {
        name: round(1e9 * (seconds - fastest["no mask"]) / SIZE, 2)
        for name, seconds in fastest.items()
        if name != "no mask"
    }
    print(f"| mask, {BACKEND} | ns a value |\n| --- | --- |")
    for name, nanoseconds in cost.items():
        print(f"| {name} | {nanoseconds} |")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        result = {"versions": versions(), "shape": SHAPE, "rate": RATE, "nanoseconds a value": cost}
        (arguments.out / f"masks-{BACKEND}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
