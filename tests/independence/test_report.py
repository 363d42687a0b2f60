"""The table and the figure of what was measured."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.independence import measuring
from tests.independence.test_measure import images, network


def test_the_ratio_of_one_channel_is_its_own_range():
    """Else its bar in the figure would have a negative length."""
    layer = keras_ic.IC()
    layer.build((None, 1))
    for variance in np.random.default_rng(0).lognormal(size=(50, 1)):
        shift = measuring._shift("ic", layer, variance)
        assert shift.lowest == shift.ratio == shift.highest


def test_the_table_and_the_figure(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    report = keras_ic.measure(network(), images(16), verbose=0)
    text = str(report)
    assert text.startswith("net: the inputs of its weight layers\nLayer")
    assert "64 of 80" in text and "\nVariance at inference over moving variance\n" in text
    report.plot(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    bare = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    keras_ic.measure(bare, images(16, 1).reshape(-1, 3), verbose=0).plot(tmp_path / "figure.svg")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "keras-ic\[plot\]"'):
        report.plot(tmp_path / "other.png")
