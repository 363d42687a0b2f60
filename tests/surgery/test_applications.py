"""The small members of the families of keras.applications. `benchmarks/rewrite_applications.py`
does all of them.
"""

import keras
import numpy as np
import pytest

import keras_ic
from tests.surgery import models

SMALL = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}


# These stand for all in the plain suite, and elsewhere than on TensorFlow, which runs an operation
# without compiling it.
ON_EVERY_BACKEND = {"MobileNetV2", "VGG16"}
LONG = {"DenseNet121", "NASNetMobile"}  # which are rewritten where they are folded


def parameter(name):
    """The name of a network as a parameter of a test, with its marks."""
    slow = pytest.mark.slow(reason="one of thirteen families of networks")
    marks = [] if name in ON_EVERY_BACKEND else [pytest.mark.tensorflow_only, slow]
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [parameter(name) for name in SMALL if name not in LONG])
def test_network(name, tmp_path):
    shape = (SMALL[name], SMALL[name], 3)
    x = np.random.default_rng(0).normal(0.0, 2.0, (8, *shape)).astype("float32")
    model = models.settle(
        getattr(keras.applications, name)(
            weights=None, input_shape=shape, classes=4, classifier_activation=None
        ),
        x,
    )
    plan = keras_ic.plan(model, weights="preserve")
    models.assert_every_weight_layer_is_accounted_for(model, plan)
    x = x[:2]
    expected = models.outputs(model, x)[0]
    for weights in ("fresh", "copy", "preserve"):
        new = keras_ic.rewrite(model, weights=weights)
        assert not models.batch_normalizations(new)
        assert len(models.ics(new)) == len(
            {change.name for change in plan.changes if change.kind == "ic"}
        )
    assert new.count_params() == plan.parameters[1]
    told = {skip.layer for skip in plan.skipped}
    assert [
        name for name, behind in models.calls_behind_ic(new) if not behind and name not in told
    ] == []
    actual = models.outputs(new, x)[0]
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
    new.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        models.outputs(keras.models.load_model(tmp_path / "model.keras"), x)[0], actual
    )
