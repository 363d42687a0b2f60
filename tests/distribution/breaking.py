"""A training that breaks off."""

import keras


class Broken(keras.callbacks.Callback):
    """Raises an error at the end of a step, counted from the first of the run."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        # A resumed epoch of `keras_ic.distribution.Backup` passes over what was done before.
        is_passed_over = getattr(getattr(self.model, "distribution", None), "skip", 0)
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if not is_passed_over and step == self.step:
            raise InterruptedError
