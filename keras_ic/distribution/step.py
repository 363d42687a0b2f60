"""One training step of one replica, with nothing in it that depends on where the replica runs."""

import itertools
from typing import Any, NamedTuple

import keras

from keras_ic.distribution.loss_weights import LossDivisors, LossWeights, unscaled
from keras_ic.distribution.recording_scope import RecordingScope, add
from keras_ic.utils.keras_internals import (
    loss_in_training,
    loss_tracker,
    loss_trackers,
    run_in_training,
    sum_of_losses,
    tensor_attributes,
    with_attributes,
)
from keras_ic.utils.lazy_imports import tensorflow as tf


class TrainStep:
    """The training step of a compiled model, to be run by every replica of a tf.distribute
    strategy.

    Keras's own step, but for what many replicas need:

    - The loss is that of the whole batch, however it is spread over replicas and parts: a part
      counts by its examples, or by what the loss divides by, which masks and weights may change.
      (Keras averages the replicas' averages.)
    - All variables that the forward pass writes are kept as plain tensors until its end, so that
      the part of the step between two exchanges can be compiled by XLA. Floats, such as the moving
      statistics of BatchNormalization, are then averaged over the replicas, all of them in one
      all-reduce. Variables of metrics belong to each replica.
    - `accumulate` parts of the batch go through the network one after another, and their gradients
      are added up before they are exchanged. (Keras's `gradient_accumulation_steps` does not work
      under strategies of several replicas.)
    - Workers that want to stop are counted along with the statistics.

    Args:
        model: A compiled `keras.Model` whose losses are built.
        accumulate: Integer above 0, the parts.
        jit_compile: Boolean, whether XLA compiles the part of the step between two exchanges.
    """

    def __init__(self, model: keras.Model, accumulate: int, jit_compile: bool):
        self.model, self.accumulate, self.jit_compile = model, accumulate, jit_compile
        self.divisors = LossDivisors(model)

    def __call__(self, data: Any, stop: Any) -> tuple[dict[str, Any], Any]:
        """Runs one step in a replica's context.

        Args:
            data: What the replica has of a batch, `x`, `(x, y)` or `(x, y, sample_weight)`.
            stop: Scalar tensor, 1 if this worker wants to stop, else 0.

        Returns:
            The metrics of this replica so far, and the number of replicas whose workers want to
            stop.
        """
        model, context = self.model, tf.distribute.get_replica_context()
        x, y, sample_weight = data = keras.utils.unpack_x_y_sample_weight(data)
        parts, weights, fraction = self._parts(context, data)
        states = _States(model)
        gradients, losses, outputs = self._run(data, parts, weights, states)
        examples = tf.add_n([part.examples for part in parts])
        # The losses are summands of those of the whole batch; a metric is the mean over examples.
        for metric, loss in zip([loss_tracker(model), *loss_trackers(model)], losses, strict=False):
            metric.update_state(
                tf.math.divide_no_nan(loss, tf.cast(fraction, loss.dtype)), sample_weight=examples
            )
        stops = self._exchange(context, states, tf.cast(stop, tf.float32), fraction)
        model.optimizer.apply(gradients, model.trainable_variables)
        return model.compute_metrics(x, y, outputs, sample_weight=sample_weight), stops

    def _parts(self, context, data):
        """The parts, what their losses weigh, and the fraction of the global batch that is here."""
        first = next(value for value in keras.tree.flatten(data[0]) if value is not None)
        size, count = tf.shape(first)[0], self.accumulate
        bounds = [size * place // count for place in range(count + 1)]
        may_be_empty = first.shape[0] is None or first.shape[0] < count
        parts = [
            _Part(begin, end, tf.cast(end - begin, tf.float32), may_be_empty)
            for begin, end in itertools.pairwise(bounds)
        ]
        replicas = context.num_replicas_in_sync
        if count * replicas == 1:
            return parts, [None], tf.ones([])
        divisors = [
            [part.examples, *self.divisors.of_part(self._piece(data, part), part.examples)]
            for part in parts
        ]
        here = totals = [tf.add_n(found) for found in zip(*divisors, strict=True)]
        if first.shape[0] is None or self.divisors.needs_outputs:
            if replicas > 1:
                summed = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(here))
                totals = tf.unstack(summed, len(here))
        else:
            totals = [value * replicas for value in here]
        fraction = tf.math.divide_no_nan(here[0], totals[0])
        return parts, self.divisors.weights(divisors, totals), fraction

    def _piece(self, data, part):
        if self.accumulate == 1:
            return data
        return keras.tree.map_structure(
            lambda value: value if value is None else value[part.begin : part.end], data
        )

    def _run(self, data, parts, weights, states):
        """The gradients and the losses of the whole batch, as far as they are from here, and the
        outputs.
        """

        def compute(*args):
            return self._compute(states, *args)

        if self.jit_compile:
            compute = tf.function(compute, jit_compile=True, autograph=False)
        gradients: list[Any] = [None] * len(self.model.trainable_variables)
        losses: list[Any] = []
        outputs = []
        for part, weight in zip(parts, weights, strict=True):
            # One after another, so that the activations of one part alone are kept.
            with tf.control_dependencies([value for value in gradients if value is not None]):
                found, new, after, out = compute(self._piece(data, part), weight, states.values)
            gradients = [add(pair) for pair in zip(gradients, part.kept(new), strict=True)]
            found = part.kept(found)
            losses = (
                [tf.add_n(pair) for pair in zip(losses, found, strict=True)] if losses else found
            )
            states.write(part, after)
            outputs.append(out)
        return gradients, losses, _joined(outputs)

    def _compute(self, states, data, weights, values):
        """Losses, gradients, the values of what is written, and the outputs with what hangs on
        them; no variable is written.
        """
        model, (x, y, sample_weight) = self.model, data
        # In such a scope Keras looks for penalized variables among those of the mapping alone.
        penalized = [
            (variable, tf.convert_to_tensor(variable.value))
            for variable in model.trainable_variables
            if variable.regularizer is not None
        ]
        scope = RecordingScope([*penalized, *states.pairs(values)])
        with scope, tf.GradientTape() as tape:
            scope.record(tape)
            outputs = run_in_training(model, x)
            loss, losses = self._loss(x, y, outputs, sample_weight, weights)
            scaled = model.optimizer.scale_loss(loss)
        gradients = scope.gradients(scaled, model.trainable_variables)
        hanging = [tensor_attributes(tensor) for tensor in keras.tree.flatten(outputs)]
        return losses, gradients, states.written_in(scope), (outputs, hanging)

    def _loss(self, x, y, outputs, sample_weight, weights: LossWeights | None):
        """The loss to differentiate, and what the metrics of losses get: its value and those of
        the compiled losses. `weights` is None for a whole batch.
        """
        model, each = self.model, []

        def logged(value, examples):
            # Without a reduction a loss has a value for each example.
            return tf.reduce_mean(value) * examples if value.shape.rank else value

        if weights is None or not self.divisors.losses:
            loss = loss_in_training(model, x, y, outputs, sample_weight)
            examples = tf.ones([])
            if weights is not None:
                examples = weights.examples
                replicas = tf.distribute.get_strategy().num_replicas_in_sync
                loss *= tf.cast(examples * replicas, loss.dtype)
            return loss, [logged(loss, examples)]

        def weigh(place, loss, y_true, y_pred, weight):
            value = unscaled(loss, y_true, y_pred, weight)
            value *= tf.cast(weights.losses[place], value.dtype)
            each.append(logged(value, weights.examples))
            return value

        loss = sum_of_losses(model, y, outputs, sample_weight, weigh)
        for added in model.losses:
            loss += tf.cast(tf.reduce_sum(added), loss.dtype) * weights.examples
        return loss, [logged(loss, weights.examples), *each]

    def _exchange(self, context, states, stop, fraction):
        """Averages the written floats over the replicas in one all-reduce, writes all that is
        written, and counts the stops.
        """
        own, shared = states.of_metrics(), states.of_model()
        for variable, value in own:
            variable.assign(value)
        floats = [place for place, (_, value) in enumerate(shared) if value.dtype.is_floating]
        values = [value for _, value in shared]
        wide = (
            tf.float64 if any(values[place].dtype == tf.float64 for place in floats) else tf.float32
        )
        # A replica with an empty batch has no statistics of its own.
        packed = [
            tf.where(
                fraction > 0,
                tf.reshape(tf.cast(values[place], wide), [-1]) * tf.cast(fraction, wide),
                0,
            )
            for place in floats
        ]
        total = tf.concat([*packed, tf.cast(stop, wide)[tf.newaxis]], 0)
        if context.num_replicas_in_sync > 1:
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, total)
        sizes = [values[place].shape.num_elements() for place in floats]
        *means, stops = tf.split(total, [*sizes, 1])
        for place, mean in zip(floats, means, strict=True):
            values[place] = tf.cast(tf.reshape(mean, values[place].shape), values[place].dtype)

        def write(strategy, *values):
            for (variable, _), value in zip(shared, values, strict=True):
                strategy.extended.update(
                    variable.value,
                    lambda variable, value: variable.assign(value),
                    args=(value,),
                    group=False,
                )

        # The way Keras's optimizers write variables of strategies with and without merge calls.
        tf.__internal__.distribute.interim.maybe_merge_call(
            write, tf.distribute.get_strategy(), *values
        )
        return stops[0]


class _Part(NamedTuple):
    """A part of a batch: its first example, the one after its last, and how many they are."""

    begin: Any
    end: Any
    examples: Any
    may_be_empty: bool

    def kept(self, values: list[Any], others: list[Any] | None = None) -> list[Any]:
        """The values; of a part without examples the others, or zeros. What layers make of no
        examples may be nan.
        """
        if not self.may_be_empty:
            return values
        others = [None] * len(values) if others is None else others
        return [
            value
            if value is None
            else tf.where(
                self.examples > 0, value, tf.zeros_like(value) if other is None else other
            )
            for value, other in zip(values, others, strict=True)
        ]


class _States:
    """The variables that the forward pass of a step writes, and the values that they have come to.

    Before the first pass they are not known. Those that usually are written are handed to the pass,
    since XLA on a GPU cannot read integer variables that TensorFlow keeps on the CPU.
    """

    def __init__(self, model: keras.Model):
        of_metrics = [variable for metric in model.metrics for variable in metric.variables]
        candidates = [*model.non_trainable_variables, *of_metrics]
        self.variables = list({id(variable): variable for variable in candidates}.values())
        self.values = [tf.convert_to_tensor(variable.value) for variable in self.variables]
        self.written: list[int] = []

    def pairs(self, values):
        """The variables that are known, each with a value."""
        return list(zip(self.variables, values, strict=False))

    def written_in(self, scope):
        """Notes what a pass has written, and gives the values."""
        places = {id(variable): place for place, variable in enumerate(self.variables)}
        for key, variable in scope.written.items():
            if key not in places:
                places[key] = len(self.variables)
                self.variables.append(variable)
            if places[key] not in self.written:
                self.written.append(places[key])
        return [scope.get_current_value(self.variables[place]) for place in self.written]

    def write(self, part, values):
        """Takes over what a pass over a part has written."""
        for variable in self.variables[len(self.values) :]:
            self.values.append(tf.convert_to_tensor(variable.value))
        places = self.written[: len(values)]
        before = [self.values[place] for place in places]
        for place, value in zip(places, part.kept(values, before), strict=True):
            self.values[place] = value

    def of_metrics(self):
        """The written variables of which each replica has its own, with their values."""
        return [pair for pair in self._all_written() if pair[0].synchronization == "on_read"]

    def of_model(self):
        """The written variables that are the same on all replicas, with their values."""
        return [pair for pair in self._all_written() if pair[0].synchronization != "on_read"]

    def _all_written(self):
        return [(self.variables[place], self.values[place]) for place in self.written]


def _joined(parts):
    """The outputs of all parts as those of one, with what hangs on them."""
    flat = [keras.tree.flatten(outputs) for outputs, _ in parts]
    joined = [
        with_attributes(
            _concatenated(tensors),
            {name: _concatenated([each[name] for each in hanging]) for name in hanging[0]},
        )
        for tensors, hanging in zip(
            zip(*flat, strict=True),
            zip(*(hanging for _, hanging in parts), strict=True),
            strict=True,
        )
    ]
    return keras.tree.pack_sequence_as(parts[0][0], joined)


def _concatenated(parts):
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)
