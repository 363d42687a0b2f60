"""Runs of `keras_ic.training` on JAX, one after another in this process, on some of its devices.

python -m tests.distribution.jax_training '[{"out": "...", "devices": 4, "kill": 5}, ...]'
"""

import json
import os
import signal
import sys

import keras

from keras_ic import distribution
from keras_ic.distribution import jax_devices
from keras_ic.training import TrainingConfig, run

# Four steps an epoch.
CONFIG = {
    "data": "digits",
    "model": "small",
    "train_size": 64,
    "batch": 16,
    "epochs": 3,
    "rate": 0.2,
}


class Signal(keras.callbacks.Callback):
    """Sends a process of the job a signal at the beginning of a step of the run."""

    def __init__(self, step, number):
        super().__init__()
        self.step, self.number = step, number

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            os.kill(os.getpid(), self.number)


def main(jobs):
    strategy = distribution.strategy(timeout=10, start_timeout=60)
    index = distribution.cluster().index if distribution.cluster() else 0
    for job in jobs:
        if "devices" in job:
            names = keras.distribution.list_devices()[: job["devices"]]
            strategy = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        callbacks = [
            Signal(job[name][1], number)
            for name, number in (("kill", signal.SIGKILL), ("stop", signal.SIGTERM))
            if name in job and job[name][0] == index
        ]
        run(
            TrainingConfig(**{**CONFIG, **job.get("config", {})}),
            job["out"],
            strategy,
            checkpoint_steps=2,
            callbacks=callbacks,
            verbose=0,
        )


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(75)
    except distribution.LostPeerError as error:
        print(error, file=sys.stderr)
        jax_devices.leave(75)
