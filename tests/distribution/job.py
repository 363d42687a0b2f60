"""One process of a job of the tests: trains a small network with all callbacks, and writes what it
saw to `OUT/INDEX.json`.

python -m tests.distribution.job '{"out": "...", "epochs": 3, ...}'
"""

import json
import os
import pathlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_ic
from keras_ic import distribution
from keras_ic.training import CheckpointCallback

DEFAULTS = {
    "epochs": 2,
    "batch": 16,
    "examples": 64,
    "rate": 0.1,
    "synchronized": False,
    "stock": False,
    "every": None,
    "kill": None,
    "terminate": None,
}


class Kill(keras.callbacks.Callback):
    """Sends this process a signal at the end of a step of the run."""

    def __init__(self, step, number):
        super().__init__()
        self.step, self.number = step, number

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            os.kill(os.getpid(), self.number)


def data(examples):
    x = np.random.default_rng(0).normal(size=(examples, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)


def main(job):
    job = {**DEFAULTS, **job}
    out = pathlib.Path(job["out"])
    strategy = distribution.strategy(timeout=5, start_timeout=60)
    found = distribution.cluster()
    index = found.index if found else 0
    keras.utils.set_random_seed(index)  # the chief's weights count
    ic = keras_ic.IC(job["rate"], synchronized=job["synchronized"], seed=3, name="ic")
    layers = [
        keras.layers.Dense(8, activation="relu"),
        ic,
        keras.layers.Dense(8),
        keras.layers.Dense(3),
    ]
    if not job["synchronized"]:
        layers.insert(3, keras.layers.BatchNormalization(name="bn"))
    x, y = data(job["examples"])
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(job["batch"])
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = dataset.with_options(options)
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), *layers])
        if not job["stock"]:
            model = distribution.prepare(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
        if not job["stock"]:
            model.optimizer.build(model.trainable_variables)
    steps, losses = -(-job["examples"] // job["batch"]), []
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs))
    ]
    epoch, step = 0, 0
    if not job["stock"]:
        checkpoint = CheckpointCallback(out / "checkpoint.keras", job["every"])
        epoch, step = checkpoint.restore(model)
        signal.signal(
            signal.SIGTERM, lambda number, frame: setattr(model.distribution, "stop_wanted", True)
        )
        # Each writes into one folder, where the files of two writers would meet.
        writers = [
            keras.callbacks.ModelCheckpoint(
                out / "best.keras", monitor="val_loss", save_best_only=True
            ),
            keras.callbacks.TensorBoard(out / "logs"),
            keras.callbacks.CSVLogger(out / f"log{index}.csv"),
        ]
        callbacks = [*callbacks, *writers, checkpoint]
        for what, number in (("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)):
            if job[what] and job[what][0] == index:
                callbacks.append(Kill(job[what][1], number))
    while epoch < job["epochs"]:
        last = epoch + 1 if step else job["epochs"]  # first the rest of an epoch alone
        model.fit(
            dataset.skip(step) if step else dataset.repeat(),
            steps_per_epoch=steps - step,
            initial_epoch=epoch,
            epochs=last,
            validation_data=dataset,
            callbacks=callbacks,
            verbose=2,
            shuffle=False,
        )
        epoch, step = last, 0
    evaluated = model.evaluate(dataset, return_dict=True, verbose=0)
    weights = [np.asarray(weight, "float64").ravel().tolist() for weight in model.get_weights()]
    results = {"logs": losses, "evaluated": evaluated, "weights": weights}
    (out / f"{index}.json").write_text(json.dumps(results))
    return json.loads(json.dumps(results))


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(75)
    except distribution.LostPeerError as error:
        print(error, file=sys.stderr)
        sys.exit(76)
