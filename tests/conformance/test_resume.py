"""A training that is saved, loaded and continued comes to the bits of one that never stopped."""

import keras
import numpy as np

from keras_ic import saving
from tests.conformance.registry import mute


def test_resume(entry, tmp_path):
    model = entry.compiled()
    x, y = entry.samples(8)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    saving.save_model(model, tmp_path / "model.keras")
    resumed = saving.load_model(tmp_path / "model.keras")
    if keras.backend.backend() == "tensorflow":
        resumed.jit_compile = False
    for each in (model, resumed):
        if keras.backend.backend() == "torch":
            mute(each)  # Keras's Dropout draws from a generator of the whole process there.
        each.fit(x, y, batch_size=4, initial_epoch=1, epochs=3, shuffle=False, verbose=0)
    for one, two in zip(
        model.variables + model.optimizer.variables,
        resumed.variables + resumed.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(two)
        )
