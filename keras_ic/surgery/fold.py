"""Folding: a network for inference, without its normalizations."""

import warnings

import keras

from keras_ic.surgery.build import build
from keras_ic.surgery.fold_plan import plan_fold


def fold(model: keras.Model) -> keras.Model:
    """Makes a network for inference: its IC, BatchNormalization and dropout layers go into the
    weights of the layers beside them.

    The given model is not changed. The new one computes the same, to rounding, with the names,
    dtype policies, trainable flags and compile configuration of the given one. It saves, loads,
    quantizes and exports as every Keras model does.

    At inference, an IC layer is a scale and a shift of each channel. These go into the linear layer
    before it, or into all linear layers behind it, through dropout, Flatten, Reshape, Permute,
    cropping, upsampling and average pooling, through maximum pooling where no scale is below 0 or
    the signs can go behind, and a mere scale through padding with zeros. Behind a ReLU or ReLU6
    they go into the layer before that, and the ReLU becomes a `keras_ic.surgery.clip.Clip`, a ReLU
    with bounds of each channel's own; so the zeros that `padding="same"` puts around the result are
    right. Where only the scale can leave, a `keras_ic.surgery.affine.Affine` adds the shift; where
    nothing can, as at a scale of 0 that no layer before takes up, it scales too. What was done to
    which layer, and why, can be read with `print(keras_ic.surgery.plan_fold(model))`.

    Args:
        model: A Sequential or Functional model, built, with its moving statistics set.

    Returns:
        A new model: a Sequential for a Sequential, a Functional for a Functional.

    Raises:
        ValueError: For a subclassed or unbuilt model, one in which there is nothing to fold, and
            one with a layer that cannot be built anew from its configuration.

    Warns:
        UserWarning: For moving statistics that are as initialized: the network has not been
            trained, or only its weights were loaded. For a compiled model that the new one cannot
            be compiled like, see `keras_ic.rewrite`.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras_ic.IC(),
            keras.layers.Conv2D(5, 3, padding="same"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    keras_ic.recalibrate(model, x, verbose=0)

    folded = keras_ic.fold(model)
    assert not any(isinstance(layer, keras_ic.IC) for layer in folded.layers)
    assert np.allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
        - [Jacob et al., 2018](https://arxiv.org/abs/1712.05877), section 3.2, folding of batch
          normalization
    """
    plan = plan_fold(model)
    if not plan.changes:
        reasons = "".join(f"; {skip.layer} {skip.reason}" for skip in plan.skipped)
        raise ValueError(
            "The model has no IC, BatchNormalization or dropout layer that could be folded, so"
            f" that it is as fast as it gets; use it as it is. Received: model {model.name!r} (of"
            f" type {type(model).__name__}){reasons}"
        )
    if plan.untrained:
        shown = ", ".join(plan.untrained[:3]) + (
            f" and {len(plan.untrained) - 3} more" if len(plan.untrained) > 3 else ""
        )
        warnings.warn(
            "Moving statistics are as initialized, so that the model is folded as if it had never"
            " seen data: train it, load its weights, or call `keras_ic.recalibrate(model, data)`"
            f" first. Received: model {model.name!r} with {shown}",
            stacklevel=2,
        )
    return build(plan)
