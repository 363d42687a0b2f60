"""Backbones of KerasHub, in small; where it is installed."""

import keras
import numpy as np
import pytest

import keras_ic
from tests.surgery import models

pytest.importorskip("keras_hub")

import keras_hub.models as hub

EFFICIENT = {
    "stackwise_width_coefficients": [1.0] * 2,
    "stackwise_depth_coefficients": [1.0] * 2,
    "stackwise_kernel_sizes": [3, 3],
    "stackwise_num_repeats": [2, 2],
    "stackwise_input_filters": [16, 16],
    "stackwise_output_filters": [16, 24],
    "stackwise_expansion_ratios": [1, 4],
    "stackwise_strides": [1, 2],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
    "stackwise_block_types": ["v1", "v1"],
    "min_depth": None,
    "include_stem_padding": True,
    "use_depth_divisor_as_min_depth": True,
    "stem_conv_padding": "valid",
}
BACKBONES = {
    "resnet": lambda: hub.ResNetBackbone(
        [64], [7], [64, 64], [2, 2], [1, 2], block_type="basic_block", image_shape=(32, 32, 3)
    ),
    "resnet_preactivation": lambda: hub.ResNetBackbone(
        [64],
        [7],
        [64, 64],
        [2, 2],
        [1, 2],
        block_type="bottleneck_block",
        use_pre_activation=True,
        image_shape=(32, 32, 3),
    ),
    "densenet": lambda: hub.DenseNetBackbone([2, 3], growth_rate=8, image_shape=(32, 32, 3)),
    "vgg": lambda: hub.VGGBackbone([2, 2], [8, 16], image_shape=(32, 32, 3)),
    "xception": lambda: hub.XceptionBackbone(
        [[8, 16], [16, 24], [24, 24]], [True, True, False], image_shape=(32, 32, 3)
    ),
    "cspnet": lambda: hub.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_num_filters=[8, 16],
        stackwise_strides=[1, 2],
        stackwise_depth=[1, 2],
        block_type="dark_block",
        stage_type="csp",
        bottle_ratio=[0.5, 1.0],
        block_ratio=[1.0, 0.5],
        expand_ratio=[2.0, 1.0],
        image_shape=(32, 32, 3),
    ),
    "efficientnet": lambda: hub.EfficientNetBackbone(image_shape=(32, 32, 3), **EFFICIENT),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name):
    model = models.randomize(BACKBONES[name]())
    unchanged = models.Unchanged(model)
    plan = keras_ic.plan(model, weights="preserve")
    models.assert_every_weight_layer_is_accounted_for(model, plan)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    for weights in ("fresh", "copy", "preserve"):
        new = keras_ic.rewrite(model, weights=weights)
        assert (
            models.ics(new)
            and not models.batch_normalizations(new)
            and isinstance(new, keras.Model)
        )
    for expected, actual in zip(models.outputs(model, x), models.outputs(new, x), strict=True):
        assert np.abs(expected - actual).max() <= 1e-4 * np.abs(expected).max()
    unchanged.check()
