"""Moving statistics from data: `calibrate` for IC layers that must keep their function, `recalibrate` for every normalization."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.trainers import data_adapters  # No public way leads to the batches that `fit` would see.

from keras_ic import kernels
from keras_ic.layer import IndependentComponent
from keras_ic.surgery.absorb import as_array
from keras_ic.surgery.graph import sublayers
from keras_ic.validation import checked_int


def calibrate(model: keras.Model, data: Any, steps: int | None = None, *, batch_size: int | None = None, verbose: int | str = "auto") -> None:
    """Sets the moving statistics of a model's IC layers from data, in one pass, keeping the model's function.

    Each IC layer gets the mean and the variance of its inputs over all of the data, and the `gamma` and `beta` with which it computes at inference
    what it did before. After `rewrite(..., weights="preserve")`, whose IC layers are identities with a moving mean of 0 and a moving variance of 1,
    this makes what they do in training agree with what they do at inference, so that training starts from the given network.

    The pass runs the model as it is at inference. As calibration does not change that, the statistics are exact in every layer at once: the mean and
    the biased variance over all values, pooled in float64. An interrupted pass leaves the model as it was.

    Args:
        model: Any `keras.Model` with IC layers, built. Changed in place.
        data: What `fit` takes: arrays (the inputs alone), or a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader` or a generator of
            `(inputs,)`, `(inputs, targets)` or `(inputs, targets, sample_weights)`; only the inputs are used.
        steps: Positive integer, how many batches to read. Defaults to `None`: all.
        batch_size: Positive integer, for arrays. Defaults to `None`: 32.
        verbose: `"auto"` or 1 for a progress bar, 0 for none. Defaults to `"auto"`.

    Raises:
        ValueError: For a model without IC layers, or with one that has no `gamma` or no `beta` to be matched; for data of another shape than the
            model's inputs, no data, and fewer batches than `steps`.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)])
    ic_model = keras_ic.rewrite(model, weights="preserve")
    x = np.random.default_rng(0).normal(size=(100, 4)).astype("float32")
    keras_ic.calibrate(ic_model, x, verbose=0)
    assert np.allclose(ic_model(x), model(x), atol=1e-5)
    ```

    References:
        - [Chan, Golub and LeVeque, 1979](http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf), pooling of means and variances
    """
    ics = [layer for layer in sublayers(_checked_model(model)) if isinstance(layer, IndependentComponent)]
    _check_found(ics, model, "IC layers")
    for layer in ics:
        if layer.gamma is None or layer.beta is None:
            raise ValueError(
                f"{layer.name} has no gamma or no beta that could be matched to its statistics, so that its function cannot be kept; "
                f"`recalibrate` sets its statistics all the same. Received: scale={layer.scale}, center={layer.center}"
            )
    updates = []
    for layer, (mean, variance) in _pooled(model, ics, data, steps, batch_size, verbose, _as_at_inference).items():
        # What the layer computes at inference is slope * x + offset.
        slope = as_array(layer.gamma) / np.sqrt(as_array(layer.moving_variance) + layer.epsilon)
        offset = as_array(layer.beta) - as_array(layer.moving_mean) * slope
        updates += [(layer.moving_mean, mean), (layer.moving_variance, variance)]
        updates += [(layer.gamma, slope * np.sqrt(variance + layer.epsilon)), (layer.beta, offset + mean * slope)]
    _assign(updates)


def recalibrate(model: keras.Model, data: Any, steps: int | None = None, *, batch_size: int | None = None, verbose: int | str = "auto") -> None:
    """Re-estimates all moving statistics of a model, of IC and BatchNormalization layers, from data in one pass, without dropout noise.

    In training, dropout adds to the variance that the normalizations behind it see and record; at inference there is no dropout, and the recorded
    variance is too large (the variance shift of Li et al., 2019). This sets the moving statistics anew, dropout off, weights untouched.

    The statistics of each layer are the mean and the biased variance of its inputs over all of the data, exactly, not by momentum: pooled in float64
    over the batches, each weighted with its number of values. What a layer's inputs are depends on the normalizations before it, whose new
    statistics are not known before the pass ends; these normalize each batch with the statistics of that batch, as in training. With the data as
    one batch, the result is the one that the new model itself reproduces; with large batches, it is close to it. An interrupted pass leaves the
    model as it was. Frozen layers are re-estimated too.

    Args:
        model: Any `keras.Model` with IC or BatchNormalization layers, built. Changed in place.
        data: What `fit` takes; see `calibrate`.
        steps: Positive integer, how many batches to read. Defaults to `None`: all.
        batch_size: Positive integer, for arrays. Defaults to `None`: 32.
        verbose: `"auto"` or 1 for a progress bar, 0 for none. Defaults to `"auto"`.

    Raises:
        ValueError: For a model without such layers, or with a subclass of BatchNormalization that computes something else; for data of another shape
            than the model's inputs, no data, and fewer batches than `steps`.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential([keras.Input((4,)), keras_ic.IC(0.1, name="ic"), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(100, 4)).astype("float32")
    keras_ic.recalibrate(model, x, verbose=0)
    assert np.allclose(model.get_layer("ic").moving_mean.numpy(), x.mean(0), rtol=1e-5)
    ```

    References:
        - [Li et al., 2019](https://arxiv.org/abs/1801.05134), the disharmony between dropout and batch normalization by variance shift
    """
    found = [layer for layer in sublayers(_checked_model(model)) if isinstance(layer, (IndependentComponent, keras.layers.BatchNormalization))]
    _check_found(found, model, "IC or BatchNormalization layers")
    for layer in found:
        if isinstance(layer, keras.layers.BatchNormalization) and type(layer).call is not keras.layers.BatchNormalization.call:
            raise ValueError(
                f"{layer.name} computes something else than BatchNormalization does, and its statistics cannot be re-estimated. "
                f"Received: a layer of type {type(layer).__name__}"
            )
    updates = []
    for layer, (mean, variance) in _pooled(model, found, data, steps, batch_size, verbose, _with_batch_statistics).items():
        updates += [(layer.moving_mean, mean), (layer.moving_variance, variance)]
    _assign(updates)


def _checked_model(model) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a keras.Model. Received: model={model!r} (of type {type(model).__name__})")
    return model


def _check_found(layers: list, model, wanted: str) -> None:
    if not layers or not all(layer.built for layer in layers):
        state = "no" if not layers else "not yet built"
        raise ValueError(f"The model has {state} {wanted} whose moving statistics could be set. Received: model {model.name!r}")


def _assign(updates: list) -> None:
    """All of the assignments, or none."""
    before = [as_array(variable) for variable, _ in updates]
    try:
        for variable, value in updates:
            variable.assign(value)
    except BaseException:
        for (variable, _), value in zip(updates, before, strict=True):
            variable.assign(value)
        raise


def _as_at_inference(layer, inputs, mean, variance):
    return _with_batch_statistics(layer, inputs, layer.moving_mean.value, layer.moving_variance.value)


def _with_batch_statistics(layer, inputs, mean, variance):
    gamma, beta = (None if weight is None else weight.value for weight in (layer.gamma, layer.beta))
    outputs = kernels.normalize(inputs, mean, variance, gamma, beta, None, rate=0.0, axis=layer.axis, epsilon=layer.epsilon)
    return ops.cast(outputs, layer.compute_dtype)


class _Recorder(keras.Model):
    """Runs a model without dropout noise; its outputs are the statistics of what the layers of interest read in this batch.

    One entry a layer by its position in `layers`: `(calls, 3, channels)` of mean, variance and number of values. A layer that is not called has
    none.
    """

    def __init__(self, model: keras.Model, layers: list, compute: Callable):
        super().__init__(name="recorder")
        self.model = model
        self.watched = dict(enumerate(layers))
        self.compute = compute

    def call(self, inputs):
        """The statistics."""
        records: dict[str, list] = {}
        with self._watching(records):
            self.model(inputs, training=False)
        return {key: ops.stack(entries) for key, entries in records.items()}

    @contextmanager
    def _watching(self, records: dict[str, list]):
        """Puts a recording call in front of each layer's own, on the instance alone and for this run alone."""

        def recording(key, layer):
            def call(inputs, training=None, mask=None):
                valid = None if mask is None else ops.expand_dims(ops.cast(mask, "bool"), -1)
                # TensorFlow adds up values one by one, which costs float32 half of its digits in a batch of images.
                wide = ops.cast(inputs, "float64") if keras.backend.backend() == "tensorflow" else inputs
                mean, variance, count = kernels.moments(wide, layer.axis, valid)
                records.setdefault(key, []).append(ops.stack([mean, variance, ops.broadcast_to(ops.cast(count, mean.dtype), ops.shape(mean))]))
                return self.compute(layer, inputs, mean, variance)

            return call

        try:
            for index, layer in self.watched.items():
                vars(layer)["call"] = recording(str(index), layer)
            yield
        finally:
            for layer in self.watched.values():
                vars(layer).pop("call", None)


def _pooled(model, layers, data, steps, batch_size, verbose, compute) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """Mean and biased variance, in float64, of what each layer reads in the data; layers that are not called are left out."""
    strategy = getattr(model, "distribute_strategy", None)
    with strategy.scope() if strategy is not None else nullcontext():
        recorder = _Recorder(model, layers, compute)
    # Compiled by XLA only where nothing else compiles: one compilation for each size of a batch costs more than it gains.
    recorder.jit_compile = keras.backend.backend() == "jax"
    totals: dict[str, tuple] = {}
    for inputs in _inputs_of(model, data, steps, batch_size, verbose):
        for key, records in recorder.predict_on_batch(inputs).items():
            for mean, variance, count in np.asarray(records, "float64"):
                totals[key] = _pool(totals.get(key, (0.0, 0.0, 0.0)), (mean, variance, count))
    return {layers[int(key)]: (mean, variance) for key, (mean, variance, _) in totals.items()}


def _pool(first: tuple, second: tuple) -> tuple:
    """Mean, biased variance and number of values of two sets together (Chan et al., 1979)."""
    (mean_1, variance_1, count_1), (mean_2, variance_2, count_2) = first, second
    count = count_1 + count_2
    share = count_2 / np.maximum(count, 1)
    difference = mean_2 - mean_1
    variance = variance_1 + share * (variance_2 - variance_1) + share * (1 - share) * difference**2
    return mean_1 + share * difference, variance, count


def _inputs_of(model, data, steps, batch_size, verbose) -> Iterator[Any]:
    """The inputs of each batch, checked, with a progress bar."""
    if steps is not None:
        steps = checked_int("steps", steps, "None or a positive integer", lambda value: value > 0)
    if batch_size is not None:
        batch_size = checked_int("batch_size", batch_size, "None or a positive integer", lambda value: value > 0)
    if verbose not in ("auto", 0, 1):
        raise ValueError(f'`verbose` must be "auto", 0 or 1. Received: verbose={verbose!r}')
    if steps is None and hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise ValueError(f"`steps` must say how many batches to read of data without end. Received: steps=None, data={data!r}")
    try:
        adapter = data_adapters.get_data_adapter(data, batch_size=batch_size)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`data` must be something that `fit` takes. {str(error)[:200]} Received: data of type {type(data).__name__}") from error
    limit = steps if steps is not None else adapter.num_batches
    bar = keras.utils.Progbar(limit, verbose=1 if verbose == "auto" else verbose)
    read = 0
    adapter.on_epoch_begin()
    for batch in itertools.islice(adapter.get_numpy_iterator(), limit):
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        _check_fits(model, inputs)
        yield inputs
        read += 1
        bar.update(read)
    adapter.on_epoch_end()
    if read == 0 or (steps is not None and read < steps):
        raise ValueError(f"`data` must hold at least one batch, and as many as `steps` says. Received: steps={steps}, data of {read} batches")
    if limit is None:
        bar.update(read, finalize=True)


def _check_fits(model, inputs) -> None:
    wanted = getattr(model, "inputs", None)
    if not wanted:
        return
    named = isinstance(inputs, dict) and all(tensor.name in inputs for tensor in wanted)
    given = [inputs[tensor.name] for tensor in wanted] if named else keras.tree.flatten(inputs)
    if len(given) == len(wanted) and all(_fits(tensor.shape, array) for tensor, array in zip(wanted, given, strict=True)):
        return
    expected = ", ".join(f"{tensor.name}: {tuple(tensor.shape)}" for tensor in wanted)
    shapes = [None if array is None else tuple(array.shape) for array in given]
    raise ValueError(f"Each batch of `data` must fit the inputs of model {model.name!r}, {expected}. Received: inputs of shapes {shapes}")


def _fits(wanted: tuple, array) -> bool:
    if array is None:
        return True  # An optional input left out.
    shape = tuple(array.shape)
    if len(shape) != len(wanted):
        # Keras adds or drops a last axis of size 1.
        longer, shorter = (shape, wanted) if len(shape) > len(wanted) else (wanted, shape)
        return len(longer) == len(shorter) + 1 and longer[-1] == 1
    return all(size is None or size == given for size, given in zip(wanted, shape, strict=True))
