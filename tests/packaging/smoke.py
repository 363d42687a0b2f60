"""What an installed package must be able to do, run where nothing but the package and a backend is
installed.
"""

import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

import keras_ic

folder = pathlib.Path(tempfile.mkdtemp())
assert (
    "site-packages" in keras_ic.__file__
    and (pathlib.Path(keras_ic.__file__).parent / "py.typed").exists()
)
x, y = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32"), np.arange(64) % 4
model = keras.Sequential(
    [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Conv2D(8, 3),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(4),
    ]
)
model = keras_ic.rewrite(model, 0.1)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
keras_ic.recalibrate(model, x, verbose=0)
model.save(folder / "model.keras")
np.testing.assert_array_equal(
    keras.models.load_model(folder / "model.keras").predict(x, verbose=0),
    model.predict(x, verbose=0),
)
folded = keras_ic.fold(model)
np.testing.assert_allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)
command = pathlib.Path(sys.executable).with_name("keras-ic")
for arguments in (
    ["fold", str(folder / "model.keras")],
    ["measure", "no.keras", "--data", "no.npz"],
):
    code = subprocess.run([command, *arguments], capture_output=True, check=False).returncode
    assert code == (0 if arguments[0] == "fold" else 2), (arguments, code)
assert (folder / "model_folded.keras").exists()
print(
    f"keras_ic {keras_ic.__version__} trains, saves, loads and folds on {keras.backend.backend()}"
)
