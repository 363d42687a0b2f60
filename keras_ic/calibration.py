"""Temporary: what is to come from the move of calibration."""

import keras

from keras_ic.surgery.statistics import recalibrate


class Recalibration(keras.callbacks.Callback):
    def __init__(self, data, steps=None, every=1):
        super().__init__()
        self.data = data

    def on_test_begin(self, logs=None):
        recalibrate(self.model, self.data, verbose=0)


def too_short_for_momentum(model, steps):
    return None
