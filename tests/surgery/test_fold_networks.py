"""Folding the small members of the families of keras.applications, the paper's networks and the
backbones of KerasHub, usual and in IC form.
"""

import keras
import numpy as np
import pytest

import keras_ic
from keras_ic.surgery import plan_fold
from tests.surgery import models
from tests.surgery.folds import scatter
from tests.surgery.test_applications import SMALL, parameter

# Whose IC form leaves nothing but linear layers and activations: no affine is left.
WHOLE = {"MobileNet", "MobileNetV2", "ResNet50", "VGG16"}


def difference(expected, actual):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def check(model, x, tolerance=1e-5):
    """Folds the baseline, and its IC form with statistics from data, and gives back the plan
    of the second.
    """
    expected = models.outputs(model, x)[0]
    if models.batch_normalizations(model):
        usual = keras_ic.fold(model)
        assert not models.batch_normalizations(usual)
        assert difference(expected, models.outputs(usual, x)[0]) <= tolerance
    rewritten = keras_ic.rewrite(model, weights="preserve")
    keras_ic.calibrate(rewritten, x, verbose=0)
    expected = models.outputs(rewritten, x)[0]
    plan = plan_fold(rewritten)
    new = keras_ic.fold(rewritten)
    assert not models.ics(new) and not models.batch_normalizations(new)
    assert new.count_params() == plan.parameters[1]
    assert difference(expected, models.outputs(new, x)[0]) <= tolerance
    return plan


@pytest.mark.parametrize("name", [parameter(name) for name in SMALL])
def test_application(name):
    shape = (SMALL[name], SMALL[name], 3)
    x = np.random.default_rng(0).normal(0.0, 2.0, (8, *shape)).astype("float32")
    model = models.settle(
        getattr(keras.applications, name)(
            weights=None, input_shape=shape, classes=4, classifier_activation=None
        ),
        x,
    )
    plan = check(model, x)
    if name in WHOLE:
        assert not any(
            "affine" in change.result or "shift" in change.result for change in plan.changes
        )


@pytest.mark.parametrize("order", ["usual", "ic", "ic-conv-relu", "conv-relu-ic"])
def test_networks_of_the_paper(order):
    x = np.random.default_rng(0).normal(size=(16, 32, 32, 3)).astype("float32")
    model = keras_ic.applications.ResNet(20, order=order, seed=0)
    keras_ic.recalibrate(model, x, verbose=0)
    for layer in (*models.ics(model), *models.batch_normalizations(model)):
        layer.beta.assign(np.random.default_rng(1).normal(0.0, 0.3, layer.beta.shape))
    new = keras_ic.fold(model)
    assert not models.ics(new) and not models.batch_normalizations(new)
    assert difference(models.outputs(model, x)[0], models.outputs(new, x)[0]) <= 1e-5
    left = [
        change.result
        for change in plan_fold(model).changes
        if "stays" in change.result or "_affine" in change.result
    ]
    assert not left or order == "ic-conv-relu"


def test_backbones_of_keras_hub():
    pytest.importorskip("keras_hub")
    from tests.surgery.test_kerashub import BACKBONES

    x = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    for make in BACKBONES.values():
        check(models.settle(make(), x), x)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        *(
            pytest.param(name, marks=pytest.mark.slow(reason="a deeper network of the same layers"))
            for name in ("DenseNet121", "ResNet50")
        ),
    ],
)
def test_exact_in_float64(name):
    """With every statistic and weight drawn at random, as no float32 network of this depth could
    bear: what is left is the error of the folding.
    """
    keras.config.set_dtype_policy("float64")
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=4, classifier_activation=None
    )
    rewritten = scatter(keras_ic.rewrite(scatter(model, 0, 0, 0), weights="preserve"), 1, 0.2, 0)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    for given in (model, rewritten):
        assert (
            difference(models.outputs(given, x)[0], models.outputs(keras_ic.fold(given), x)[0])
            <= 1e-9
        )
