"""What a process of its own does to entries of the registry: `python -m tests.conformance.child
train|predict FOLDER NAME...`.

`train` prints, as JSON, a sum over the weights after training with a seed; `predict` loads the
files in FOLDER and writes what they predict beside them. An entry that fails has its error in place
of the result.
"""

import hashlib
import json
import pathlib
import sys
import traceback

import keras
import numpy as np

from tests.conformance.registry import ENTRIES


def trained(entry):
    """The digest of all variables after two epochs, from the same seed always."""
    model = entry.compiled(seed=11)
    x, y = entry.samples(12)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    digest = hashlib.sha256()
    for variable in model.variables + model.optimizer.variables:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def predicted(entry, folder):
    model = keras.models.load_model(folder / f"{entry.name}.keras")
    np.save(
        folder / f"{entry.name}.{keras.backend.backend()}.npy",
        model.predict(entry.samples(4)[0], verbose=0),
    )
    return "done"


def main():
    what, folder, *names = sys.argv[1:]
    results = {}
    for name in names:
        try:
            results[name] = (
                trained(ENTRIES[name])
                if what == "train"
                else predicted(ENTRIES[name], pathlib.Path(folder))
            )
        except Exception:
            results[name] = traceback.format_exc()
        keras.utils.clear_session(free_memory=False)
    pathlib.Path(folder, f"{what}.{keras.backend.backend()}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
