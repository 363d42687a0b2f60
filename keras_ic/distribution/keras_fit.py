"""`fit` under every strategy.

Keras 3.15 fails under MultiWorkerMirroredStrategy in two places (keras#20585): the method that
builds metrics and losses reduces a batch over the workers as if it were one number a replica, and
the function around a step reduces scalar metrics along axis 0. Both are given to a model as
attributes of its own, beside its class, so that it is saved as what it is.
`tests/distribution/test_workers.py` fails when Keras needs this no longer.
"""

import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_ic.distribution.agreement import (
    broadcast,
    broadcast_variables,
    number_of_workers,
    worker_index,
)
from keras_ic.distribution.peers import peers_needed
from keras_ic.distribution.step import TrainStep
from keras_ic.surgery.compiling import compile_like
from keras_ic.utils.keras_internals import (
    SYMBOLIC_BUILD,
    build_from_batch,
    copy_decay_exclusions,
    initial_epoch,
    is_fully_built,
    set_initial_epoch,
    sublayers,
)
from keras_ic.utils.lazy_imports import tensorflow as tf
from keras_ic.utils.validation import checked_int, checked_model

# What writes files or to the terminal, and so is the chief's alone. A callback of one's own is too
# if it has an attribute `chief_only` that is true.
OF_CHIEF = (
    "BackupAndRestore",
    "CSVLogger",
    "ModelCheckpoint",
    "ProgbarLogger",
    "RemoteMonitor",
    "TensorBoard",
)


def prepare(
    model: keras.Model, accumulate: int = 1, jit_compile: bool | str = "auto"
) -> keras.Model:
    """A copy of a model whose `fit` and `evaluate` work, and are right, under the strategy of the
    scope that this is called in.

    Under `MultiWorkerMirroredStrategy`, which stock Keras 3 fails with, each worker calls it, and
    `fit` afterwards; the chief's weights become those of all. The chief alone shows progress and
    runs callbacks that write (`ModelCheckpoint`, `BackupAndRestore`, `TensorBoard`, and others that
    have an attribute `chief_only`); what `BackupAndRestore` restores reaches all workers. Metrics
    of an epoch are those of all replicas, every example counted once however unevenly the last
    batch is spread; those shown while an epoch runs are this worker's. Moving statistics, stock
    BatchNormalization's too, are averaged over the replicas at every step.

    Args:
        model: A built `keras.Model`, Functional, Sequential or with a `get_config` that gives it
            back; compiled or not, made in the scope or not. A `train_step` of its own is kept and
            used.
        accumulate: Integer above 0: what a replica has of a batch goes through the network in so
            many parts, and their gradients are added up, so that the memory for activations is that
            of one part. Loss and gradients are those of the whole batch, also with masks and
            weights; a loss that a `compute_loss` of the model's own gives counts as a mean over
            examples. Defaults to `1`.
        jit_compile: `True`, `False` or `"auto"`: whether XLA compiles the forward and the backward
            pass inside each replica's step; then batches need a fixed size. (Keras turns XLA off
            under every strategy.) `"auto"` is True on GPUs and TPUs where no layer is synchronized.
            Defaults to `"auto"`.

    Returns:
        A new model of the same class with the same weights, and compiled likewise, with its
        optimizer's state. On the JAX backend the model itself, whose `fit` needs nothing.

    Raises:
        LostPeerError: From `fit` and `evaluate`, if another worker is gone or does not answer,
            after the `timeout` of `strategy` at the latest.
        ValueError: If the model is not built or cannot be copied; for arguments that the above
            excludes; if XLA is asked for and a layer is synchronized, since the exchange inside the
            layer would stand in the compiled part.

    Example:

    ```python
    import keras
    import keras_ic
    from keras_ic import distribution

    with distribution.strategy("one").scope():  # of tf.distribute
        model = keras.Sequential([keras.Input((3,)), keras_ic.IC(), keras.layers.Dense(2)])
        model = distribution.prepare(model, accumulate=2)
        model.compile("sgd", "mse")
    model.fit(keras.ops.ones((8, 3)), keras.ops.zeros((8, 2)), verbose=0)
    ```

    Reference: keras#20585
    """
    accumulate = checked_int(
        "accumulate", accumulate, "an integer above 0", lambda value: value > 0
    )
    if jit_compile not in (True, False, "auto"):
        raise ValueError(
            f"`jit_compile` must be True, False or 'auto'. Received: jit_compile={jit_compile!r}"
        )
    if not checked_model(model).built:
        raise ValueError(
            "The model must be built; give it an `Input`, or call it once. Received: model"
            f" {model.name!r}, which is not built"
        )
    backend = keras.backend.backend()
    if backend == "jax" and accumulate == 1:
        return model
    if backend != "tensorflow":
        raise ValueError(
            "`prepare` needs the TensorFlow backend (and JAX no preparation, with accumulate=1)."
            f" Received: backend {backend!r}"
        )
    synchronized = [
        layer.name for layer in sublayers(model) if getattr(layer, "synchronized", False)
    ]
    if jit_compile is True and synchronized:
        raise ValueError(
            "XLA cannot compile exchanges inside layers; take jit_compile=False. Received:"
            f" synchronized layers {', '.join(synchronized)}"
        )
    strategy = tf.distribute.get_strategy()
    if jit_compile == "auto":
        accelerators = tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")
        jit_compile = bool(accelerators) and not synchronized
    with peers_needed(number_of_workers(strategy)):
        prepared = _copy(model)
        broadcast_variables(strategy, variables_of(prepared))
    _PreparedModel(prepared, strategy, accumulate, bool(jit_compile))
    return prepared


class _PreparedModel:
    """The methods that take the place of a model's own, and what they share."""

    def __init__(self, model: keras.Model, strategy: Any, accumulate: int, jit_compile: bool):
        self.model, self.strategy, self.accumulate, self.jit_compile = (
            model,
            strategy,
            accumulate,
            jit_compile,
        )
        self.workers, self.is_chief = number_of_workers(strategy), worker_index(strategy) == 0
        self.has_own_step = type(model).train_step is not keras.Model.train_step
        self.stop_wanted = self.stop_agreed = False
        self.waited = 0.0  # seconds, for data
        self._stops: Any = None
        model.distribution = self
        for name in (
            "fit",
            "evaluate",
            "make_train_function",
            "make_test_function",
        ):
            setattr(model, name, getattr(self, name))
        setattr(model, SYMBOLIC_BUILD, self.build)

    def fit(self, *args, callbacks=None, verbose="auto", **kwargs):
        """As `keras.Model.fit`."""
        callbacks = [*self._of_this_worker(callbacks), _Broadcast()]
        self._stops = None
        with peers_needed(self.workers):
            return type(self.model).fit(
                self.model, *args, callbacks=callbacks, verbose=self._shown(verbose), **kwargs
            )

    def evaluate(self, *args, callbacks=None, verbose="auto", **kwargs):
        """As `keras.Model.evaluate`."""
        # A list that Keras has made is passed on as it is, since it has been filtered before.
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = self._of_this_worker(callbacks)
        with peers_needed(self.workers):
            return type(self.model).evaluate(
                self.model, *args, callbacks=callbacks, verbose=self._shown(verbose), **kwargs
            )

    def make_train_function(self, force=False):
        """Compiles the training step, unless it is there."""
        model = self.model
        if model.train_function is not None and not force:
            return
        if model.steps_per_execution != 1:
            raise ValueError(
                "A prepared model takes one step at a time. Received:"
                f" steps_per_execution={model.steps_per_execution}"
            )

        def own_step(data, stop):
            return model.train_step(data), None

        take = self._distributed(
            own_step if self.has_own_step else TrainStep(model, self.accumulate, self.jit_compile)
        )

        def function(iterator):
            # Read a step late, so that nothing waits for the device. All workers do so, and come to
            # know it in the same step.
            self.stop_agreed = self._stops is not None and float(self._stops) > 0
            logs, self._stops = take(iterator, self.stop_wanted)
            return logs

        model.train_function = function

    def make_test_function(self, force=False):
        """Compiles the step of an evaluation, unless it is there."""
        model = self.model
        if model.test_function is None or force:
            take = self._distributed(lambda data, stop: (model.test_step(data), None))
            model.test_function = lambda iterator: take(iterator, False)[0]

    def build(self, iterator=None, data_batch=None):
        """Builds metrics and losses from this replica's part of a batch, and reads no batch where
        all is built.
        """
        if is_fully_built(self.model):
            return
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = next(batches) if not isinstance(batches, (list, tuple)) else batches[0]
        data_batch = keras.tree.map_structure(
            lambda value: self.strategy.experimental_local_results(value)[0], data_batch
        )
        with self.strategy.scope():
            build_from_batch(self.model, data_batch)

    def _distributed(self, step):
        """A function of an iterator that runs a step on all replicas, and gives the mean of its
        logs over those of this worker.
        """

        def on_all(data, stop):
            logs, stops = self.strategy.run(step, args=(data, stop))
            locally = self.strategy.experimental_local_results
            return {
                name: tf.reduce_mean(tf.stack(locally(value)), 0) for name, value in logs.items()
            }, (None if stops is None else locally(stops)[0])

        compiled: dict[Any, Any] = {}

        def take(iterator, stop):
            begin = time.perf_counter()
            data = next(iterator)
            self.waited += time.perf_counter() - begin
            if self.model.run_eagerly:
                return on_all(data, float(stop))
            # With the iterator's own shapes, so that the smaller last batch, or a replica without
            # any of it, needs no other function.
            signature = None
            if isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
                signature = [iterator.element_spec, tf.TensorSpec([])]
            key = str(signature)
            if key not in compiled:
                compiled[key] = tf.function(on_all, input_signature=signature, autograph=False)
            return compiled[key](data, tf.constant(float(stop)))

        return take

    def _of_this_worker(self, callbacks):
        callbacks = (
            callbacks
            if isinstance(callbacks, (list, tuple))
            else []
            if callbacks is None
            else [callbacks]
        )
        return of_this_worker(callbacks, self.is_chief)

    def _shown(self, verbose):
        return verbose if self.is_chief else 0


def of_this_worker(callbacks: Sequence, is_chief: bool) -> list:
    """The callbacks that a worker runs."""

    def is_of_chief(callback):
        return getattr(callback, "chief_only", False) or any(
            kind.__name__ in OF_CHIEF for kind in type(callback).__mro__
        )

    return [each for each in callbacks if is_chief or not is_of_chief(each)]


class _Broadcast(keras.callbacks.Callback):
    """Gives all workers what the callbacks of the chief have restored."""

    def on_train_begin(self, logs=None):
        strategy = self.model.distribution.strategy
        broadcast_variables(strategy, variables_of(self.model))
        (epoch,) = broadcast(strategy, [np.array(initial_epoch(self.model))])
        set_initial_epoch(self.model, int(epoch))


def variables_of(model: keras.Model) -> list:
    """All variables of a model and its optimizer but those of metrics."""
    of_metrics = {id(variable) for metric in model.metrics for variable in metric.variables}
    own = [variable for variable in model.variables if id(variable) not in of_metrics]
    return own + (
        list(model.optimizer.variables) if model.compiled and model.optimizer is not None else []
    )


def _copy(model: keras.Model) -> keras.Model:
    try:
        new = type(model).from_config(model.get_config())
        if not new.built:
            new.build_from_config(model.get_build_config())
        pairs = list(
            zip(variables_of(new), variables_of(model)[: len(variables_of(new))], strict=True)
        )
        if any(to.shape != given.shape for to, given in pairs):
            raise ValueError("its copy has other weights")
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The model cannot be copied ({' '.join(str(error).split())}); make it Functional, or"
            f" give it `get_config` and `from_config`. Received: model {model.name!r} of type"
            f" {type(model).__name__}"
        ) from error
    for to, given in pairs:
        to.assign(keras.ops.convert_to_numpy(given))
    compile_like(model, new)
    if not new.compiled or model.optimizer is None:
        return new
    copy_decay_exclusions(
        model.optimizer,
        new.optimizer,
        zip(model.trainable_variables, new.trainable_variables, strict=True),
    )
    if model.optimizer.built:
        for to, given in zip(new.optimizer.variables, model.optimizer.variables, strict=True):
            to.assign(keras.ops.convert_to_numpy(given))
    return new
