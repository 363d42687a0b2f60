"""The Independent-Component layer: configuration, state and call. Its arithmetic is in
`keras_ic.kernels`.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import constraints, initializers, ops, regularizers

from keras_ic import kernels
from keras_ic.kernels.replicas import synchronized
from keras_ic.kernels.shapes import mask_of_rank
from keras_ic.kernels.threshold import realized_rate
from keras_ic.layers.checks import (
    check_inputs,
    check_no_keep_probability,
    check_single_pass,
    checked_axis,
    checked_channels,
    checked_noise_shape,
    checked_synchronized,
    warn_of_high_rate,
)
from keras_ic.utils.validation import (
    checked_bool,
    checked_momentum,
    checked_rate,
    checked_seed,
    positive_real,
)

SEED_STATE = "seed_generator_state"


@keras.saving.register_keras_serializable(package="keras_ic")
class IndependentComponent(keras.layers.Layer):
    """Batch normalization, then dropout, as one layer to stand directly before a weight layer.

    The baseline has weight layer, BatchNorm, activation. The IC order of Chen et al. (2019) has
    BatchNorm and a little dropout before each weight layer instead, so that the inputs of the
    weight layer come closer to being independent:

        baseline   x -> Conv -> BatchNorm -> ReLU -> Conv -> ...
        IC         x -> Conv -> ReLU -> [BatchNorm -> Dropout] -> Conv -> ...

    In training, every channel is normalized with the mean and variance of the batch, scaled by
    `gamma`, shifted by `beta`, and then each value is set to 0 with probability `rate` or divided
    by `1 - rate`. At inference, the moving averages of mean and variance are used and nothing is
    dropped.

    **What dropout does to dependence.** Let `p = 1 - rate` be the *keep* probability (the paper's
    `p`; Keras's `rate` is the probability to *drop*), and `g`, `g'` independent Bernoulli(p) gates
    on two variables `x`, `x'`. Then

    - the correlation of `g x` and `g' x'` is `p` times that of `x` and `x'`, if both have zero
      mean. In general it is `p * cov(x, x') / sqrt(v * v')`, where `v = var(x) + (1 - p) * E[x]^2`
      and `v'` is the same of `x'`;
    - their mutual information is `p^2` times that of `x` and `x'`, if neither is ever exactly 0, so
      that the gate can be read off the value; else it is at most that;
    - the entropy of `g x` is `p * H(x) + H(Bernoulli(p))`, in nats, for discrete `x` that is never
      exactly 0.

    A ReLU's output has neither property: its mean is positive and much of it is exactly 0. That is
    why the normalization stands before the dropout. With the default rate of 0.05, correlation
    falls to 0.95 and mutual information to 0.9025 of what it was.

    **Relation to Keras's own layers.** With `rate=0` this is `keras.layers.BatchNormalization`,
    weight for weight: the same names in the same order, so that `get_weights` and `set_weights`
    carry them between the two. With `scale=False, center=False` it is `Dropout` on standardized
    input. Unlike stock Keras 3, the masks differ on every replica of a `tf.distribute` strategy,
    the moving statistics agree across replicas, and the position in the random stream is saved with
    the model, so that a resumed training draws the masks that an unbroken one would have drawn.

    **Gradient checkpointing.** `keras.RematScope` leaves this layer out. A call from the second
    pass of `tf.recompute_grad` or `torch.utils.checkpoint` is refused: it would draw another mask
    and count the statistics twice.

    **Frozen.** `layer.trainable = False` means moving statistics that neither move nor are replaced
    by those of the batch, and no dropout, also when called with `training=True`.

    **Monte-Carlo prediction.** `layer.monte_carlo = True` keeps the dropout on where the layer runs
    at inference or is frozen, with the moving statistics untouched, so that repeated predictions
    are samples. It is a way of calling, not part of the model, and is not saved. Set it before a
    model's first `predict`, or recompile after: a compiled function keeps what it was traced with.

    Args:
        rate: Float in `[0, 1)`, the probability to **drop** a value, that is to set it to 0 in
            training; 1 minus the paper's keep probability `p`. It is realized to within `2**-17`,
            and what is kept is divided by 1 minus the realized rate. Defaults to `0.05`; the
            paper's range is 0.03 to 0.10, and the first layer with 0.5 or more warns. `layer.rate`
            may be set later, but not from 0, since a layer without dropout has no random stream;
            what is compiled keeps the rate it was compiled with.
        axis: Integer, the channel axis: `-1` for `channels_last`, `1` for `channels_first`.
            Defaults to `-1`.
        momentum: Float in `[0, 1]`, the weight of the old value in each update of the moving
            statistics. Defaults to `0.99`.
        epsilon: Float above 0, added to the variance. Defaults to `1e-3`.
        center: Boolean, whether there is a `beta`. Defaults to `True`.
        scale: Boolean, whether there is a `gamma`. Defaults to `True`.
        beta_initializer: Initializer of `beta`. Defaults to `"zeros"`.
        gamma_initializer: Initializer of `gamma`. Defaults to `"ones"`.
        moving_mean_initializer: Initializer of the moving mean. Defaults to `"zeros"`.
        moving_variance_initializer: Initializer of the moving variance. Defaults to `"ones"`.
        beta_regularizer: Regularizer of `beta`. Defaults to `None`.
        gamma_regularizer: Regularizer of `gamma`. Defaults to `None`.
        beta_constraint: Constraint of `beta`. Defaults to `None`.
        gamma_constraint: Constraint of `gamma`. Defaults to `None`.
        synchronized: Boolean, whether the statistics of a training batch are those of the global
            batch of a `tf.distribute` strategy (TensorFlow only). The masks then depend on the
            position of an example in the global batch, so that any number of replicas computes what
            one does. Defaults to `False`: each replica normalizes with its own statistics and draws
            masks of its own, and the moving statistics are averaged.
        noise_shape: Tuple of one integer or `None` for each axis of the inputs, the shape of the
            mask, which is broadcast along axes of size 1; `None` stands for the size of the input
            there. `(None, 1, 1, None)` drops whole channels of images. Defaults to
            `None`: each value on its own.
        seed: Integer in `[0, 2**31)`. Two layers with the same seed draw the same masks. Defaults
            to `None`: a seed from Python's generator, which `keras.utils.set_random_seed` makes
            reproducible.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        - `inputs`: Tensor of floats, of rank 2 or more.
        - `training`: Boolean, whether to use and record the statistics of the batch and to drop.
          Defaults to what `fit`, `evaluate` and `predict` set, else to `False`.
        - `mask`: Boolean tensor of the shape of `inputs` without the last axis, or of its first
          axes, such as `(batch, time)` for `(batch, time, height, width, channels)`. Positions that
          are False do not enter the statistics.

    Output shape:
        That of `inputs`.

    Raises:
        ValueError: For an argument, an input or a call that the above excludes, naming what was
            received.

    Example:

    ```python
    import keras
    import keras_ic

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras_ic.IC(0.05),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras_ic.IC(0.05),
            keras.layers.Dense(10),
        ]
    )
    assert model(keras.ops.ones((2, 8, 8, 1))).shape == (2, 10)
    ```

    Samples for an estimate of the uncertainty:

    ```python
    import keras
    import keras_ic

    layer = keras_ic.IC(0.1, seed=0)
    layer.build((None, 64))
    layer.monte_carlo = True
    samples = [layer(keras.ops.ones((1, 64))) for _ in range(2)]
    assert not keras.ops.all(samples[0] == samples[1])
    ```

    References:
        - [Chen et al., 2019](https://arxiv.org/abs/1905.05928), Rethinking the usage of batch
          normalization and dropout
        - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), batch normalization
        - [Srivastava et al., 2014](https://jmlr.org/papers/v15/srivastava14a.html), dropout
    """

    def __init__(
        self,
        rate: float = 0.05,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        synchronized: bool = False,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_no_keep_probability(kwargs)
        super().__init__(**kwargs)
        self.supports_masking = True
        self.rate = rate
        warn_of_high_rate(self.rate)
        self.axis = checked_axis(axis)
        self.momentum = checked_momentum("momentum", momentum)
        self.epsilon = positive_real("epsilon", epsilon)
        self.center = checked_bool("center", center)
        self.scale = checked_bool("scale", scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.synchronized = checked_synchronized(synchronized)
        self.noise_shape = checked_noise_shape(noise_shape)
        self.seed = None if seed is None else checked_seed("seed", seed)
        self.monte_carlo = False
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.gamma = self.beta = None

    @property
    def rate(self) -> float:
        """The probability to drop a value."""
        return self._rate

    @rate.setter
    def rate(self, value: float) -> None:
        value = checked_rate("rate", value)
        if value > 0 and hasattr(self, "_rate") and not hasattr(self, "seed_generator"):
            raise ValueError(
                f"The rate of {self.name} cannot rise from 0, since it has no random stream; make"
                f" it with a rate above 0. Received: {value}"
            )
        self._rate = value

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the weights for this input shape (a tuple of integers, None where unknown)."""
        channels = checked_channels(self, input_shape)

        def add(name, initializer, **kwargs):
            return self.add_weight(
                name=name, shape=(channels,), initializer=initializer, autocast=False, **kwargs
            )

        if self.scale:
            self.gamma = add(
                "gamma",
                self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center:
            self.beta = add(
                "beta",
                self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )
        # Averaged over the replicas at each update: without it Keras saves those of the first
        # replica alone.
        moving: dict[str, Any] = {"trainable": False, "aggregation": "mean"}
        self.moving_mean = add("moving_mean", self.moving_mean_initializer, **moving)
        self.moving_variance = add("moving_variance", self.moving_variance_initializer, **moving)
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes={self.axis: channels})

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes and drops; see the class."""
        learning = bool(training) and self.trainable
        dropping = self.rate > 0 and (learning or self.monte_carlo)
        mask = None if mask is None else ops.convert_to_tensor(mask, "bool")
        check_inputs(self, inputs, mask, learning)
        if learning or dropping:
            check_single_pass(self)
        common = {"rate": realized_rate(self.rate), "axis": self.axis, "epsilon": self.epsilon}
        gamma, beta = self._value(self.gamma), self._value(self.beta)
        if learning and mask is None and not self.synchronized:
            keep = self._draw(inputs) if dropping else None
            outputs, mean, variance = kernels.train(inputs, gamma, beta, keep, **common)
            # A replica with an empty batch leaves the moving statistics unchanged. Whether it is
            # empty may be known only when it runs. The smallest size tells; unlike the product of
            # all sizes it never outgrows 32 bits.
            count = ops.min(ops.shape(inputs)) if None in inputs.shape else 1
            self._update_moving(mean, variance, count)
            return ops.cast(outputs, self.compute_dtype)
        mean, variance = self._value(self.moving_mean), self._value(self.moving_variance)
        first = None
        if learning:
            shift = mean
            mean, variance, count = kernels.moments(
                inputs, self.axis, mask_of_rank(mask, len(inputs.shape))
            )
            if self.synchronized:
                mean, variance, count, first = synchronized(
                    mean, variance, count, shift, examples=ops.shape(inputs)[0]
                )
            self._update_moving(mean, variance, count)
        keep = self._draw(inputs, first) if dropping else None
        outputs = kernels.normalize(inputs, mean, variance, gamma, beta, keep, **common)
        return ops.cast(outputs, self.compute_dtype)

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """`layer_call`: a `keras.RematScope` leaves this layer out, since a second pass would draw
        another mask and count the statistics twice.
        """
        return layer_call

    def _update_moving(self, mean, variance, count):
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = ops.cast(moving.value, batch.dtype)
            new = old * self.momentum + batch * (1.0 - self.momentum)
            if not isinstance(count, int):
                new = ops.where(count > 0, new, old)
            moving.assign(ops.cast(new, moving.dtype))

    def _draw(self, inputs, first=None):
        shape = ops.shape(inputs)
        if self.noise_shape is not None:
            shape = tuple(
                size if wanted is None else wanted
                for size, wanted in zip(shape, self.noise_shape, strict=True)
            )
            if first is not None and self.noise_shape[0] is not None:
                first = 0  # one mask for all examples
        return kernels.draw(shape, self.rate, self.seed_generator.next(), first)

    @staticmethod
    def _value(variable):
        return None if variable is None else variable.value

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The shape of the inputs."""
        return input_shape

    def compute_output_spec(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """The shape of the inputs, in the compute dtype; so a wrong input is refused when a model
        is put together, not when it first runs.
        """
        check_inputs(self, inputs, mask, learning=False)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON values."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": constraints.serialize(self.beta_constraint),
            "gamma_constraint": constraints.serialize(self.gamma_constraint),
            "synchronized": self.synchronized,
            "noise_shape": self.noise_shape,
            "seed": self.seed,
        }

    def save_own_variables(self, store: Any) -> None:
        """The weights as `BatchNormalization` stores them, and the position in the random stream
        beside them.
        """
        super().save_own_variables(store)
        if self.rate > 0:
            store[SEED_STATE] = self.seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        """Takes the weights of a layer saved without dropout too; the random stream then stays
        where it is.
        """
        names = store.keys()  # an entry of an HDF5 file iterates in no other way
        stored = {name: store[name] for name in names}
        seed_state = stored.pop(SEED_STATE, None)
        super().load_own_variables(stored)
        if seed_state is not None and self.rate > 0:
            self.seed_generator.state.assign(seed_state)


IC = IndependentComponent
