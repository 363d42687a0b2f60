"""Monte-Carlo prediction: samples of a model's outputs with dropout on, their mean and their
spread.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from keras_ic import kernels
from keras_ic.layers.independent_component import IndependentComponent
from keras_ic.utils.data_adapters import inputs_of, size_of
from keras_ic.utils.keras_internals import sublayers
from keras_ic.utils.layer_hooks import replaced_calls
from keras_ic.utils.validation import checked_int, checked_model

SPATIAL = (layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D)
STOCK_CALLS = {kind.call for kind in (layers.Dropout, *SPATIAL)}


class Prediction(NamedTuple):
    """Mean and standard deviation over the samples, each of the structure and shapes of
    `model.predict(data)`.
    """

    mean: Any
    std: Any


def predict_with_uncertainty(
    model: keras.Model,
    data: Any,
    samples: int = 20,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Prediction:
    """Predicts several times with dropout on, and returns the mean and the spread of the
    predictions.

    Each sample draws new masks in all IC layers and in stock Dropout and SpatialDropout layers,
    while all moving statistics stay those of inference. For a model that ends in a softmax, the
    mean is the averaged probability, which is what to compare with labels; for one that ends in
    logits, it is the mean of the logits. The spread is a measure of how much the weights left open
    what to predict (Gal and Ghahramani, 2016): it is larger for inputs unlike those of the
    training, but it is not an error bar until it has been compared with errors on data put aside.

    The model is left exactly as it was, also after an exception or an interruption: weights, random
    streams, flags and compiled functions. A frozen IC layer drops too, as `monte_carlo` says, and
    so does the Dropout inside `MultiHeadAttention`; recurrent layers run as at inference.

    Args:
        model: A built model with an IC or Dropout layer whose rate is above 0.
        data: What `fit` takes: arrays (the inputs alone), or a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a torch `DataLoader` or a generator of `(inputs,)`, `(inputs,
            targets)` or `(inputs, targets, sample_weights)`; only the inputs are used.
        samples: Integer of 2 or more, the number of predictions of each input. Defaults to `20`.
        steps: Positive integer, how many batches to read. Defaults to `None`: all.
        batch_size: Positive integer, for arrays. Defaults to `None`: 32.
        seed: Integer in `[0, 2**31)`. The same seed and batch size give the same numbers, on one
            backend and machine. Defaults to `0`.
        verbose: `"auto"` or 1 for a progress bar, 0 for none. Defaults to `"auto"`.

    Returns:
        A `Prediction`, a tuple `(mean, std)` of NumPy arrays, or structures of them, of the shapes
        of `model.predict(data)`. `std` has the divisor `samples - 1`.

    Raises:
        ValueError: For an argument that the above excludes, a model without dropout or with a
            Dropout of a subclass whose `call` is its own; for data of another shape than the
            model's inputs, no data, and fewer batches than `steps`; and for outputs that are not
            one for each input.

    Example:

    ```python
    import keras
    import keras_ic
    import numpy as np

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras_ic.IC(0.1),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    mean, std = keras_ic.predict_with_uncertainty(
        model, np.ones((5, 4), "float32"), samples=10, seed=1, verbose=0
    )
    assert mean.shape == std.shape == (5, 3) and std.max() > 0
    ```

    References:
        - [Gal and Ghahramani, 2016](https://arxiv.org/abs/1506.02142), dropout as a Bayesian
          approximation
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), the IC layer
    """
    checked_model(model)
    samples = checked_int("samples", samples, "an integer of 2 or more", lambda value: value >= 2)
    seed = checked_int("seed", seed, "an integer in [0, 2**31)", lambda value: 0 <= value < 2**31)
    dropping = [
        layer
        for layer in sublayers(model)
        if isinstance(layer, (IndependentComponent, layers.Dropout))
        and layer.rate > 0
        and hasattr(layer, "seed_generator")
    ]
    stocks = [layer for layer in dropping if isinstance(layer, layers.Dropout)]
    own = [layer.name for layer in stocks if type(layer).call not in STOCK_CALLS]
    if own:
        raise ValueError(
            "What a Dropout with a `call` of its own does at inference is not known; use IC or"
            f" stock Dropout. Received: {', '.join(own)}"
        )
    if not dropping:
        raise ValueError(
            "The model has no IC or Dropout layer with a rate above 0, so that all samples would"
            f" be the same; call `model.predict`. Received: model {model.name!r} (of type"
            f" {type(model).__name__})"
        )
    sampler = _Sampler(model)
    with _sampling(dropping, seed):
        batches = [
            _moments(sampler, inputs, samples)
            for inputs in inputs_of(model, data, steps, batch_size, verbose)
        ]
    means, stds = (
        keras.tree.map_structure(
            lambda *parts: np.concatenate(parts), *(batch[part] for batch in batches)
        )
        for part in (0, 1)
    )
    return Prediction(means, stds)


class _Sampler(keras.Model):
    """Runs the model in a compiled function of its own, which is traced with dropout on."""

    def __init__(self, model: keras.Model):
        super().__init__(name="sampler", autocast=False)
        self.model = model
        self.built = True
        # Compiled by XLA only where nothing else compiles.
        self.jit_compile = keras.backend.backend() == "jax"

    def call(self, inputs):
        """The outputs of the model."""
        return self.model(inputs, training=False)


def _moments(sampler: _Sampler, inputs: Any, samples: int) -> tuple[Any, Any]:
    """Mean and standard deviation of the outputs, sample by sample, so that memory does not grow
    with their number (Welford, 1962).
    """
    count = size_of(inputs)
    for number in range(1, samples + 1):
        outputs = sampler.predict_on_batch(inputs)
        values = [np.asarray(value) for value in keras.tree.flatten(outputs)]
        if any(value.shape[:1] != (count,) for value in values):
            raise ValueError(
                "Each output must have one entry for each input, along its first axis. Received:"
                f" outputs of shapes {[value.shape for value in values]} for {count} inputs"
            )
        if number == 1:
            means, squares = ([np.zeros(value.shape) for value in values] for _ in range(2))
        for value, mean, square in zip(values, means, squares, strict=True):
            difference = value - mean
            mean += difference / number
            square += difference * (value - mean)
    stds = [np.sqrt(square / (samples - 1)) for square in squares]

    def packed(part):
        typed = [
            each.astype("float64" if value.dtype == "float64" else "float32")
            for each, value in zip(part, values, strict=True)
        ]
        return keras.tree.pack_sequence_as(outputs, typed)

    return packed(means), packed(stds)


@contextlib.contextmanager
def _sampling(dropping: list, seed: int) -> Iterator[None]:
    """Within the block, these layers drop at inference, with random streams that start from `seed`;
    then all is as it was.
    """
    states = [
        keras.ops.convert_to_numpy(layer.seed_generator.state.value).copy() for layer in dropping
    ]
    ics = [layer for layer in dropping if isinstance(layer, IndependentComponent)]
    flags = [layer.monte_carlo for layer in ics]
    try:
        for index, layer in enumerate(dropping):
            # The first number tells the streams apart, the second counts the draws.
            first = np.random.default_rng([seed, index]).integers(2**31)
            layer.seed_generator.state.assign(np.array([first, 0], "uint32"))
        for layer in ics:
            layer.monte_carlo = True
        with replaced_calls({layer: _dropping(layer) for layer in dropping if layer not in ics}):
            yield
    finally:
        for layer, flag in zip(ics, flags, strict=True):
            layer.monte_carlo = flag
        for layer, state in zip(dropping, states, strict=True):
            layer.seed_generator.state.assign(state)


def _dropping(layer):
    """The call of a stock Dropout, on at inference, with masks drawn as the IC layer draws its own:
    Keras's on torch know no seed.
    """

    def call(inputs, training=None):
        keep = kernels.draw(
            _mask_shape(layer, keras.ops.shape(inputs)), layer.rate, layer.seed_generator.next()
        )
        return keras.ops.where(keep, inputs / (1.0 - layer.rate), keras.ops.zeros_like(inputs))

    return call


def _mask_shape(layer, shape):
    if isinstance(layer, SPATIAL):
        channels = 1 if getattr(layer, "data_format", None) == "channels_first" else len(shape) - 1
        return tuple(size if axis in (0, channels) else 1 for axis, size in enumerate(shape))
    if layer.noise_shape is None:
        return shape
    if len(layer.noise_shape) != len(shape):
        raise ValueError(
            f"`noise_shape` of {layer.name} must have one entry an axis of the inputs. Received:"
            f" {layer.noise_shape} for rank {len(shape)}"
        )
    return tuple(
        size if wanted is None else wanted
        for size, wanted in zip(shape, layer.noise_shape, strict=True)
    )
