"""A training that breaks off."""

import keras


class Broken(keras.callbacks.Callback):
    """Raises an error at the end of a step, counted from the first of the run."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)) == self.step:
            raise InterruptedError
