"""Moving statistics from data: `calibrate` for IC layers that must keep their function,
`recalibrate` for every normalization.
"""

import collections
import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ic import kernels
from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.utils.data_adapters import inputs_of
from keras_ic.utils.keras_internals import sublayers
from keras_ic.utils.layer_hooks import PooledMoments, Recorder, input_moments, stacked_moments
from keras_ic.utils.validation import checked_model

NORMALIZATIONS = (IndependentComponent, keras.layers.BatchNormalization)


def calibrate(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    *,
    batch_size: int | None = None,
    verbose: int | str = "auto",
) -> None:
    """Sets the moving statistics of a model's IC layers from data, in one pass, keeping the model's
    function.

    Each IC layer gets the mean and the variance of its inputs over all of the data, and the `gamma`
    and `beta` with which it computes at inference what it did before. After `rewrite(...,
    weights="preserve")`, whose IC layers are identities with a moving mean of 0 and a moving
    variance of 1, this makes what they do in training agree with what they do at inference, so that
    training starts from the given network.

    The pass runs the model as it is at inference. As calibration does not change that, the
    statistics are right in every layer at once: the mean and the biased variance over all values,
    of each batch in the precision of the training, pooled in float64. An interrupted pass leaves
    the model as it was.

    Args:
        model: Any `keras.Model` with IC layers, built. Changed in place.
        data: What `fit` takes: arrays (the inputs alone), or a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a torch `DataLoader` or a generator of `(inputs,)`, `(inputs,
            targets)` or `(inputs, targets, sample_weights)`; only the inputs are used.
        steps: Positive integer, how many batches to read. Defaults to `None`: all.
        batch_size: Positive integer, for arrays. Defaults to `None`: 32.
        verbose: `"auto"` or 1 for a progress bar, 0 for none. Defaults to `"auto"`.

    Raises:
        ValueError: For a model without IC layers, or with one that has no `gamma` or no `beta` to
            be matched; for data of another shape than the model's inputs, no data, and fewer
            batches than `steps`; and where an IC layer reads nan, inf, or values whose variance its
            weights cannot hold. The model is left as it was.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)]
    )
    ic_model = keras_ic.rewrite(model, weights="preserve")
    x = np.random.default_rng(0).normal(size=(100, 4)).astype("float32")
    keras_ic.calibrate(ic_model, x, verbose=0)
    assert np.allclose(ic_model.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    ```

    References:
        - [Chan, Golub and LeVeque,
          1979](http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf), pooling of
          means and variances
    """
    ics = [
        layer
        for layer in sublayers(checked_model(model))
        if isinstance(layer, IndependentComponent)
    ]
    _check_found(ics, model, "IC layers")
    for layer in ics:
        if layer.gamma is None or layer.beta is None:
            raise ValueError(
                f"{layer.name} has no gamma or no beta that could be matched to its statistics, so"
                " that its function cannot be kept; `recalibrate` sets its statistics all the"
                f" same. Received: scale={layer.scale}, center={layer.center}"
            )
    updates = []
    batches = inputs_of(model, data, steps, batch_size, verbose)
    moments = MomentsPass(model, ics, _as_at_inference).moments(batches)
    for layer, (mean, variance) in moments.items():
        # What the layer computes at inference is slope * x + offset.
        slope = _as_array(layer.gamma) / np.sqrt(_as_array(layer.moving_variance) + layer.epsilon)
        offset = _as_array(layer.beta) - _as_array(layer.moving_mean) * slope
        updates += [(layer.moving_mean, mean), (layer.moving_variance, variance)]
        updates += [
            (layer.gamma, slope * np.sqrt(variance + layer.epsilon)),
            (layer.beta, offset + mean * slope),
        ]
    _assign(updates)


def recalibrate(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    *,
    batch_size: int | None = None,
    verbose: int | str = "auto",
) -> None:
    """Re-estimates all moving statistics of a model, of IC and BatchNormalization layers, from data
    in one pass, without dropout noise.

    In training, dropout adds to the variance that the normalizations after it see and record; at
    inference there is no dropout, and the recorded variance is too large (the variance shift of Li
    et al., 2019). This re-estimates the moving statistics, dropout off, weights untouched.

    The statistics of each layer are the mean and the biased variance of its inputs over all of the
    data, not by momentum: pooled in float64 over the batches, each weighted with its number of
    values. What a layer's inputs are depends on the normalizations before it, whose new
    statistics are not known before the pass ends; these normalize each batch with the statistics of
    that batch, as in training. With the data as one batch, the result is the one that the new model
    itself reproduces; with large batches, it is close to it. An interrupted pass leaves the model
    as it was. Frozen layers are re-estimated too.

    Args:
        model: Any `keras.Model` with IC or BatchNormalization layers, built. Changed in place.
        data: What `fit` takes; see `calibrate`.
        steps: Positive integer, how many batches to read. Defaults to `None`: all.
        batch_size: Positive integer, for arrays. Defaults to `None`: 32.
        verbose: `"auto"` or 1 for a progress bar, 0 for none. Defaults to `"auto"`.

    Raises:
        ValueError: For a model without such layers, or with a subclass of BatchNormalization that
            computes something else; for data of another shape than the model's inputs, no data, and
            fewer batches than `steps`; and where such a layer reads nan, inf, or values whose
            variance its weights cannot hold. The model is left as it was.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [keras.Input((4,)), keras_ic.IC(0.1, name="ic"), keras.layers.Dense(2)]
    )
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(100, 4)).astype("float32")
    keras_ic.recalibrate(model, x, verbose=0)
    assert np.allclose(model.get_layer("ic").moving_mean.numpy(), x.mean(0), rtol=1e-5)
    ```

    References:
        - [Li et al., 2019](https://arxiv.org/abs/1801.05134), the disharmony between dropout and
          batch normalization by variance shift
    """
    found = normalizations(model)
    batches = inputs_of(model, data, steps, batch_size, verbose)
    set_statistics(MomentsPass(model, found, with_batch_statistics).moments(batches))


def normalizations(model) -> list:
    """The IC and BatchNormalization layers of a model, checked."""
    found = [
        layer for layer in sublayers(checked_model(model)) if isinstance(layer, NORMALIZATIONS)
    ]
    _check_found(found, model, "IC or BatchNormalization layers")
    for layer in found:
        if (
            isinstance(layer, keras.layers.BatchNormalization)
            and type(layer).call is not keras.layers.BatchNormalization.call
        ):
            raise ValueError(
                f"{layer.name} computes something else than BatchNormalization does, and its"
                " statistics cannot be re-estimated. Received: a layer of type"
                f" {type(layer).__name__}"
            )
    return found


def set_statistics(moments: dict) -> None:
    """Gives each layer of `moments` its new mean and variance: all of them, or none."""
    _assign(
        [
            update
            for layer, (mean, variance) in moments.items()
            for update in ((layer.moving_mean, mean), (layer.moving_variance, variance))
        ]
    )


def _check_found(layers: list, model, wanted: str) -> None:
    if not layers or not all(layer.built for layer in layers):
        state = "no" if not layers else "not yet built"
        raise ValueError(
            f"The model has {state} {wanted} whose moving statistics could be set. Received: model"
            f" {model.name!r}"
        )


def _check_finite(statistics: dict, model) -> None:
    bad = [
        layer.name
        for layer, (mean, variance) in statistics.items()
        if not (_fits(layer.moving_mean, mean) and _fits(layer.moving_variance, variance))
    ]
    if bad:
        shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise ValueError(
            "The moving statistics stay as they were, since the new ones are nan or infinite: look"
            " for nan, inf and huge values in the data, and in the weights before the first of"
            f" these layers. Received: model {model.name!r} with {shown}"
        )


def _as_array(variable) -> np.ndarray:
    """The value of a weight in float64."""
    return np.asarray(variable.numpy(), "float64")


def _fits(variable, value: np.ndarray) -> bool:
    """Whether the values are finite in the precision of the weight."""
    # numpy does not know bfloat16, which reaches as far as float32.
    precision = "float32" if variable.dtype == "bfloat16" else variable.dtype
    return bool(np.all(np.abs(value) <= np.finfo(precision).max))


def _assign(updates: list) -> None:
    """All of the assignments, or none."""
    before = [_as_array(variable) for variable, _ in updates]
    try:
        for variable, value in updates:
            variable.assign(value)
    except BaseException:
        for (variable, _), value in zip(updates, before, strict=True):
            variable.assign(value)
        raise


def _as_at_inference(layer, inputs, mask, draws, own):
    return input_moments(inputs, mask, layer.axis), own()


def with_batch_statistics(layer, inputs, mask, draws, own):
    """The moments of what the layer reads in this batch, and its inputs normalized with them."""
    gamma, beta = (None if weight is None else weight.value for weight in (layer.gamma, layer.beta))
    options = {"rate": 0.0, "axis": layer.axis, "epsilon": layer.epsilon}
    if mask is None:
        outputs, mean, variance = kernels.train(inputs, gamma, beta, None, **options)
        moments = stacked_moments(mean, variance, ops.size(inputs) // inputs.shape[layer.axis])
    else:
        moments = input_moments(inputs, mask, layer.axis)
        outputs = kernels.normalize(inputs, moments[0], moments[1], gamma, beta, None, **options)
    return moments, ops.cast(outputs, layer.compute_dtype)


class MomentsPass:
    """The moments of what some layers read, again and again without another compilation.

    Args:
        model: A built `keras.Model`.
        layers: List of layers of the model.
        compute: Callable that gets a layer and what a look of `Recorder` gets, and returns the
            layer's moments and its outputs.
    """

    def __init__(self, model: keras.Model, layers: list, compute: Callable):
        self.model, self.layers = model, layers
        looks = {
            str(index): (layer, functools.partial(compute, layer))
            for index, layer in enumerate(layers)
        }
        self.recorder = Recorder(model, looks, training=False)

    def moments(self, batches: Iterable[Any]) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
        """Mean and biased variance, in float64 and finite, of what each layer reads in the batches
        of inputs; layers that are not called are left out.
        """
        totals: dict[str, PooledMoments] = collections.defaultdict(PooledMoments)
        for inputs in batches:
            for key, records in self.recorder.predict_on_batch(inputs).items():
                for record in records:
                    totals[key].add(record)
        found = {
            self.layers[int(key)]: (total.mean, total.variance)
            for key, total in sorted(totals.items(), key=lambda item: int(item[0]))
        }
        _check_finite(found, self.model)
        return found
