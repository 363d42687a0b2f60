"""Four epochs are two epochs, save, a new process that only imports the package, load, two more;
to the bit.
"""

import subprocess
import sys

import numpy as np

RUN = """
import keras, keras_ic, numpy as np

def run(start, stop, loaded, saved):
    x = np.random.default_rng(0).normal(size=(96, 8, 8, 1)).astype("float32")
    y = np.arange(96) % 3
    if loaded is None:
        keras.utils.set_random_seed(11)
        model = keras.Sequential([
            keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, activation="relu"), keras_ic.IC(0.1),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(), keras_ic.IC(0.2, seed=5), keras.layers.Dense(3),
        ])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    else:
        keras.utils.set_random_seed(99)  # what the new process happens to hold must not matter
        model = keras.models.load_model(loaded)
    model.fit(x, y, batch_size=32, initial_epoch=start, epochs=stop, shuffle=False, verbose=0)
    model.save(saved)
    states = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]
    np.savez(saved + ".npz", *model.get_weights(), *states)

"""


def test_four_epochs_equal_two_and_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = {}
    exec(RUN, here)
    here["run"](0, 4, None, "unbroken.keras")
    here["run"](0, 2, None, "half.keras")
    script = RUN + "run(2, 4, 'half.keras', 'resumed.keras')"
    subprocess.run([sys.executable, "-c", script], check=True)
    unbroken, resumed, half = (
        np.load(tmp_path / f"{name}.keras.npz") for name in ("unbroken", "resumed", "half")
    )
    assert unbroken.files
    for name in unbroken.files:
        np.testing.assert_array_equal(unbroken[name], resumed[name])
    assert any(not np.array_equal(unbroken[name], half[name]) for name in unbroken.files)
