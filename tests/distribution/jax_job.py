"""One process of a job on JAX: trains a small network on its part of the data, and prints what it
saw as JSON.
"""

import json

import keras
import numpy as np

import keras_ic
from keras_ic import distribution


def main():
    strategy = distribution.strategy()
    import jax

    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(8, activation="relu"),
        keras_ic.IC(0.1, seed=1),
        keras.layers.Dense(3),
    ]
    model = distribution.prepare(keras.Sequential([keras.Input((6,)), *layers]))
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    mine = slice(jax.process_index(), None, jax.process_count())
    batch = 16 // jax.process_count()
    losses = model.fit(
        x[mine], y[mine], batch_size=batch, epochs=5, shuffle=False, verbose=0
    ).history["loss"]
    print(
        json.dumps(
            {
                "replicas": strategy.num_model_replicas,
                "processes": jax.process_count(),
                "losses": losses,
            }
        )
    )


if __name__ == "__main__":
    main()
