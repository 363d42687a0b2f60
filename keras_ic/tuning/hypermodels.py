"""Hypermodels for any tuner of Keras Tuner: the CIFAR ResNets, and any model that
`keras_ic.rewrite` can rewrite.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import keras

from keras_ic import surgery
from keras_ic.surgery.compiling import compile_like
from keras_ic.training.config import TrainingConfig
from keras_ic.training.networks import network
from keras_ic.training.optimizers import learning_rate, optimizer
from keras_ic.training.rate_schedule import RateSchedule, ic_layers, rates_over_depth
from keras_ic.tuning.space import SearchSpace
from keras_ic.utils.lazy_imports import keras_tuner
from keras_ic.utils.validation import positive_int


class _Searched(keras_tuner.HyperModel):
    """A hypermodel whose hyperparameters are those of a search space.

    Every IC layer gets its rate by `rates_over_depth`, and while a model is fitted, a callback sets
    the rates of the epoch.
    """

    def __init__(self, space: SearchSpace | None, steps: int | None):
        super().__init__()
        self.space = SearchSpace() if space is None else space
        if not isinstance(self.space, SearchSpace):
            raise ValueError(f"`space` must be a `SearchSpace` or None. Received: space={space!r}")
        self.steps = None if steps is None else positive_int("steps", steps)

    def fit(self, hp, model, *args, **kwargs):
        """Fits a model as Keras Tuner does, with the rates on their schedule over `epochs`, and the
        learning rate on its own.
        """
        layers, epochs = ic_layers(model), kwargs.get("epochs", 1)
        # Of a copy, since nothing is declared here that `build` has not declared.
        chosen = self.space.for_layers(len(layers)).choose(hp.copy())
        config = TrainingConfig(**{**chosen, "epochs": epochs})
        if layers and config.rate_schedule != "constant":
            rates = rates_over_depth(config, len(layers))
            callback = RateSchedule(config.rate_schedule, epochs, rates)
            kwargs["callbacks"] = [callback, *kwargs.get("callbacks", [])]
        if self.steps is None and "learning_rate" in chosen and config.schedule != "constant":
            steps = epochs * _steps_of_an_epoch(*args, **kwargs)
            model.optimizer.learning_rate = learning_rate(config, steps)
        return model.fit(*args, **kwargs)


def _steps_of_an_epoch(
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    *rest: Any,
    validation_split: float | None = None,
    steps_per_epoch: int | None = None,
    **others: Any,
) -> int:
    """The steps of an epoch of `fit` with these arguments."""
    if steps_per_epoch is not None:
        return steps_per_epoch
    arrays = [value for value in keras.tree.flatten(x) if len(getattr(value, "shape", ()))]
    if arrays:
        examples = math.floor(arrays[0].shape[0] * (1 - (validation_split or 0)))
        return math.ceil(examples / (batch_size or 32))
    try:
        return len(x)
    except (TypeError, NotImplementedError):
        raise ValueError(
            "The length of these data is not known, over which the learning rate decays; give"
            f" `steps` to the hypermodel. Received: x={x!r}"
        ) from None


class ICResNetHyperModel(_Searched):
    """The CIFAR ResNets with the rates, the order of layers, the learning rate and its decay to be
    searched.

    Works with RandomSearch, BayesianOptimization, Hyperband and GridSearch of Keras Tuner as they
    are. The models take standardized images, are compiled with a sparse categorical cross-entropy
    on logits, and report `accuracy`.

    Args:
        depth: Integer, as of `keras_ic.applications.ResNet`. Defaults to `20`.
        space: A `SearchSpace`. Defaults to `None`: the default one.
        steps: Integer above 0, the steps of a whole training, over which the learning rate decays.
            Defaults to `None`: `epochs` of `fit` times the steps of an epoch, which Hyperband makes
            those of a part of the training.
        classes: Integer, the number of classes. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`. Defaults to `(32, 32, 3)`.
        **recipe: Further arguments of `keras_ic.training.TrainingConfig`, such as `optimizer`,
            `weight_decay` or `seed`.

    Raises:
        ValueError: For an argument that the above excludes.
        ImportError: If Keras Tuner is not installed.

    Example:

    ```python
    import tempfile
    import keras_tuner
    import numpy as np
    from keras_ic.tuning import ICResNetHyperModel, SearchSpace

    x, y = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32"), np.arange(8)
    hypermodel = ICResNetHyperModel(8, SearchSpace(rate=(0, 0.1)), steps=2, input_shape=(8, 8, 1))
    tuner = keras_tuner.RandomSearch(
        hypermodel, "val_accuracy", max_trials=1, directory=tempfile.mkdtemp()
    )
    tuner.search(x, y, batch_size=4, epochs=1, validation_data=(x, y), verbose=0)
    assert "learning_rate" in tuner.get_best_hyperparameters()[0].values
    ```
    """

    def __init__(
        self, depth=20, space=None, steps=None, classes=10, input_shape=(32, 32, 3), **recipe
    ):
        super().__init__(space, steps)
        if self.space.learning_rate is None:
            raise ValueError(
                "`learning_rate` of the space must be one or two numbers above 0. Received:"
                " learning_rate=None"
            )
        self.recipe = {"model": f"resnet{depth}", **recipe}
        self.classes, self.input_shape = classes, input_shape
        counts = []
        for order in self.space.orders:  # so that a bad argument is told at once
            values = {**self.space.choose(keras_tuner.HyperParameters()), "order": order}
            counts.append(len(ic_layers(self._network(values))))
        layers = min((count for count in counts if count), default=0)
        self.space = self.space.for_layers(layers)

    def build(self, hp):
        """A compiled model."""
        chosen = self.space.choose(hp)
        model = self._network(chosen)
        made = optimizer(TrainingConfig(**{**self.recipe, **chosen}), self.steps or 1, model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(made, loss, metrics=["accuracy"])
        # So that Hyperband takes it up where it was.
        model.optimizer.build(model.trainable_variables)
        return model

    def _network(self, chosen: dict[str, Any]) -> keras.Model:
        config = TrainingConfig(**{**self.recipe, **chosen})
        return network(config, self.input_shape, self.classes)


class ICHyperModel(_Searched):
    """Any model, rewritten with IC layers whose rates are to be searched, with its learning rate
    and the decay of it.

    Each trial rewrites the model by `keras_ic.rewrite`, which leaves the given one as it is.
    What sets none of its IC layers is not searched; see `SearchSpace.for_layers`.
    With `"conv-bn-relu"` among the orders of the space, the model as it is given is a candidate
    too.

    Args:
        model_or_builder: A Sequential or Functional model, compiled unless the space's
            `learning_rate` is None; or a function that returns one, of Keras Tuner's `hp` or of no
            argument that it must be given. It may ask for hyperparameters of other names than those
            of the space. A model that is given, and not built by a function,
            starts each trial with new weights or its own as `weights` in `policy` says.
        space: A `SearchSpace`, with the orders `"relu-ic-conv"` and `"conv-bn-relu"` at most.
            Defaults to `None`: the default one.
        steps: Integer above 0, the steps of a whole training, over which the learning rate decays.
            Defaults to `None`: `epochs` of `fit` times the steps of an epoch, which Hyperband makes
            those of a part of the training.
        **policy: Arguments of `keras_ic.rewrite` other than `rate`, such as `weights="copy"`.

    Raises:
        ValueError: For an argument that the above excludes, a model without weight layers, and one
            that is not compiled though its learning rate is to be searched; those of a function's
            model, and hyperparameters of the function whose names the space has, when it is built.
        ImportError: If Keras Tuner is not installed.

    Example:

    ```python
    import keras
    import keras_tuner
    from keras_ic.tuning import ICHyperModel, SearchSpace

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu", name="a"),
            keras.layers.Dense(2, name="b"),
        ]
    )
    model.compile("adam", "mse")
    hypermodel = ICHyperModel(model, SearchSpace(schedules="constant"))
    assert hypermodel.build(keras_tuner.HyperParameters()).get_layer("b_ic").rate == 0.05
    ```
    """

    def __init__(
        self,
        model_or_builder: keras.Model | Callable,
        space: SearchSpace | None = None,
        steps: int | None = None,
        **policy: Any,
    ):
        super().__init__(space, steps)
        if "rate" in policy:
            raise ValueError(
                "The rates are what is searched; give their range in `space`. Received:"
                f" rate={policy['rate']!r}"
            )
        if not set(self.space.orders) <= {"relu-ic-conv", "conv-bn-relu"}:
            raise ValueError(
                'A model is rewritten into the order "relu-ic-conv" alone. Received:'
                f" orders={self.space.orders!r}"
            )
        self.model_or_builder, self.policy = model_or_builder, policy
        if isinstance(model_or_builder, keras.Model):
            self._check(model_or_builder)
            surgery.plan(model_or_builder, **policy)
        elif not callable(model_or_builder):
            raise ValueError(
                "`model_or_builder` must be a model, or a function that returns one. Received:"
                f" {model_or_builder!r}"
            )

    def build(self, hp):
        """The rewritten model, compiled as the given one is, with the learning rate that the
        hyperparameters choose.
        """
        given, theirs = self._given(hp)
        rewritten = surgery.rewrite(given, **self.policy)
        layers = ic_layers(rewritten)
        ours = keras_tuner.HyperParameters()
        space = self.space.for_layers(len(layers))
        space.choose(ours)
        _check_names(theirs, {each.name for each in ours.space})
        chosen = space.choose(hp)
        config = TrainingConfig(**chosen)
        model = rewritten
        if config.order == "conv-bn-relu":
            model = self._baseline(given)
        else:
            for layer, rate in zip(layers, rates_over_depth(config, len(layers)), strict=True):
                layer.rate = rate
        if self.space.learning_rate is not None:
            _set_learning_rate(model.optimizer, learning_rate(config, self.steps or 1))
        return model

    def _given(self, hp) -> tuple[keras.Model, set[str]]:
        """The model to rewrite, and the names of the hyperparameters that its builder asks for."""
        if isinstance(self.model_or_builder, keras.Model):
            return self.model_or_builder, set()
        parameters = inspect.signature(self.model_or_builder).parameters.values()
        own = keras_tuner.HyperParameters()
        own.values = hp.values  # the same dictionary, so that new ones get their defaults in both
        if any(parameter.default is parameter.empty for parameter in parameters):
            model = self.model_or_builder(own)
        else:
            model = self.model_or_builder()
        hp.merge(own)
        hp.active_scopes += own.active_scopes
        hp.inactive_scopes += own.inactive_scopes
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"The function must return a Keras model. Received: {model!r} (of type"
                f" {type(model).__name__})"
            )
        self._check(model)
        return model, {each.name for each in own.space}

    def _baseline(self, given: keras.Model) -> keras.Model:
        """The model as it is given, which is copied unless it was built for this trial."""
        if not isinstance(self.model_or_builder, keras.Model):
            return given
        model = keras.models.clone_model(given)
        if self.policy.get("weights", "fresh") != "fresh":
            model.set_weights(given.get_weights())
        compile_like(given, model)
        return model

    def _check(self, model: keras.Model) -> None:
        if not model.compiled and self.space.learning_rate is not None:
            raise ValueError(
                "The model must be compiled, for its learning rate to be searched; compile it, or"
                f" give a space with learning_rate=None. Received: model {model.name!r}, not"
                " compiled"
            )


def _check_names(theirs: set[str], ours: set[str]) -> None:
    if theirs & ours:
        raise ValueError(
            f"The function asks for hyperparameters that the search space has, too; rename them, or"
            f" take them out of `space` (by one value; learning_rate=None). Received:"
            f" {', '.join(sorted(theirs & ours))}"
        )


def _set_learning_rate(given: keras.optimizers.Optimizer, value) -> None:
    # The configuration of an optimizer has a schedule as a dictionary.
    if isinstance(value, float) and isinstance(given.get_config()["learning_rate"], dict):
        # Keras takes no number in place of a schedule.
        value = keras.optimizers.schedules.PiecewiseConstantDecay([1], [value, value])
    given.learning_rate = value
