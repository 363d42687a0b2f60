"""A `.keras` file loads with `safe_mode=True`, and holds no lambda, no pickle and no code."""

import json
import marshal
import pickle
import zipfile

import h5py
import keras
import numpy as np

from keras_ic import saving

# Whose classes keras_ic registers.
OWN = {"keras_ic.layers.independent_component", "keras_ic.layers.channel_affine"}


def modules(value):
    """The modules that a configuration names, at every depth."""
    if isinstance(value, dict):
        yield from [value["module"]] if isinstance(value.get("module"), str) else []
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from modules(part)


def test_safe_loading(entry, tmp_path, monkeypatch):
    model = entry.built()
    path = tmp_path / "model.keras"
    saving.save_model(model, path)
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {
            "metadata.json",
            saving.CONFIG,
            "model.weights.h5",
            saving.RANDOM_STATES,
        }
        text = archive.read(saving.CONFIG).decode()
        with h5py.File(archive.open("model.weights.h5")) as weights:
            kinds: list = []
            weights.visititems(
                lambda name, part: (
                    kinds.append(part.dtype.kind) if isinstance(part, h5py.Dataset) else None
                )
            )
            # An external link would read another file.
            assert set(kinds) <= set("fiu") and "External" not in str(weights)
    assert "__lambda__" not in text and '"Lambda"' not in text
    assert {
        module for module in modules(json.loads(text)) if module.split(".")[0] != "keras"
    } <= OWN

    def refuse(*arguments, **options):
        raise AssertionError("code or a pickle is read from a model file")

    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (marshal, "loads"),
    ):
        monkeypatch.setattr(module, name, refuse)
    loaded = keras.models.load_model(path, safe_mode=True)
    for one, two in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
