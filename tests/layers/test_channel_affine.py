"""ChannelAffine and ChannelClip: what they compute, and what they refuse."""

import keras
import numpy as np
import pytest

from keras_ic.layers import ChannelAffine, ChannelClip

ALL = [
    (lambda axis: ChannelAffine(axis), lambda x, one, two: one * x + two),
    (lambda axis: ChannelAffine(axis, use_scale=False), lambda x, one: x + one),
    (lambda axis: ChannelClip(axis), lambda x, one: np.maximum(x, one)),
    (
        lambda axis: ChannelClip(axis, use_upper=True),
        lambda x, one, two: np.minimum(np.maximum(x, one), two),
    ),
]


@pytest.mark.parametrize("make, expected", ALL)
@pytest.mark.parametrize("axis", [-1, 1])
def test_values_on_every_axis_after_a_file(make, expected, axis, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 3, 5)).astype("float32")
    model = keras.Sequential([keras.Input((3, 5)), make(axis)])
    vectors = [random.normal(size=x.shape[axis]).astype("float32") for _ in model.get_weights()]
    model.set_weights(vectors)
    model.save(tmp_path / "model.keras")
    placed = [vector if axis == -1 else vector[:, None] for vector in vectors]
    for made in (model, keras.models.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(
            made.predict(x, verbose=0), expected(x, *placed), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("kind", [ChannelAffine, ChannelClip])
def test_bad_axes(kind):
    for axis, shape in ((3, (None, 4)), (1, (None, None, 4))):
        with pytest.raises(ValueError, match=rf"must be one of the axes.*Received: axis={axis}"):
            kind(axis).build(shape)
    with pytest.raises(ValueError, match="Received: axis='last'"):
        kind("last")


def test_bad_options():
    with pytest.raises(ValueError, match="Received: use_upper='yes'"):
        ChannelClip(use_upper="yes")
    with pytest.raises(ValueError, match="Received: use_scale='yes'"):
        ChannelAffine(use_scale="yes")
