"""One training step of one replica, with nothing in it that depends on where the replica runs."""

from typing import Any

import keras


class TrainStep:
    """The training step of a compiled model, to be run by every replica of a tf.distribute
    strategy.

    Keras's own step, but for what many replicas need:

    - Every example counts alike: the loss of a replica with a smaller share of the last batch
      weighs less. (Keras averages the replicas' averages.)
    - Moving statistics, those of BatchNormalization too, are averaged over the replicas, all of
      them in one all-reduce. Until then they are kept as plain tensors, so that the part of the
      step between two exchanges can be compiled by XLA.
    - `accumulate` parts of the batch go through the network one after another, and their gradients
      are added up before they are exchanged. (Keras's `gradient_accumulation_steps` does not work
      under strategies of several replicas.)
    - Workers that want to stop are counted along with the statistics.

    Args:
        model: A compiled `keras.Model`.
        accumulate: Integer above 0, the parts.
        jit_compile: Boolean, whether XLA compiles the part of the step between two exchanges.
    """

    def __init__(self, model: keras.Model, accumulate: int, jit_compile: bool):
        self.model, self.accumulate, self.jit_compile = model, accumulate, jit_compile
        counted = {id(variable) for metric in model.metrics for variable in metric.variables}
        self.states = [
            variable for variable in model.non_trainable_variables if id(variable) not in counted
        ]

    def __call__(self, data: Any, stop: Any) -> tuple[dict[str, Any], Any]:
        """Runs one step in a replica's context.

        Args:
            data: The replica's share of a batch, `x`, `(x, y)` or `(x, y, sample_weight)`.
            stop: Scalar tensor, 1 if this worker wants to stop, else 0.

        Returns:
            The metrics of this replica so far, and the number of replicas whose workers want to
            stop.
        """
        import tensorflow as tf

        model, context = self.model, tf.distribute.get_replica_context()
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        first = next(value for value in keras.tree.flatten(x) if value is not None)
        count = tf.cast(tf.shape(first)[0], tf.float32)
        replicas = context.num_replicas_in_sync
        # The part of the global batch that is here; equal for all where the size is fixed.
        share = 1.0 / replicas
        if first.shape[0] is None and replicas > 1:
            share = tf.math.divide_no_nan(
                count, context.all_reduce(tf.distribute.ReduceOp.SUM, count)
            )

        compute = (
            tf.function(self._compute, jit_compile=True, autograph=False)
            if self.jit_compile
            else self._compute
        )
        states = [tf.convert_to_tensor(state.value) for state in self.states]
        gradients: list[Any] = []
        losses, predictions = [], []
        size = tf.shape(first)[0]
        may_be_empty = first.shape[0] is None or first.shape[0] < self.accumulate
        for part in range(self.accumulate):
            begin, end = size * part // self.accumulate, size * (part + 1) // self.accumulate
            piece = (x, y, sample_weight)
            # One after another, so that the activations of one part alone are kept.
            with tf.control_dependencies(
                [gradient for gradient in gradients if gradient is not None]
            ):
                if self.accumulate > 1:
                    piece = keras.tree.map_structure(
                        lambda value, begin=begin, end=end: (
                            value if value is None else value[begin:end]
                        ),
                        piece,
                    )
                weight = tf.cast(end - begin, tf.float32) / tf.maximum(count, 1) * share * replicas
                loss, outputs, new, after = compute(*piece, weight, states)
            new = [_dense(gradient) for gradient in new]
            if may_be_empty:
                # Of no example there are no statistics and no gradient, and what layers make of it
                # may be nan.
                filled = end > begin
                new = [
                    (
                        gradient
                        if gradient is None
                        else tf.where(filled, gradient, tf.zeros_like(gradient))
                    )
                    for gradient in new
                ]
                after = [
                    tf.where(filled, value, old) for value, old in zip(after, states, strict=True)
                ]
            states = after
            gradients = (
                new
                if not gradients
                else [
                    a if b is None else b if a is None else a + b
                    for a, b in zip(gradients, new, strict=True)
                ]
            )
            losses.append((loss, tf.cast(end - begin, tf.float32)))
            predictions.append(outputs)
        outputs = (
            predictions[0]
            if self.accumulate == 1
            else keras.tree.map_structure(lambda *parts: tf.concat(parts, 0), *predictions)
        )

        for loss, examples in losses:
            model._loss_tracker.update_state(loss * replicas, sample_weight=examples)
        stops = self._exchange(context, states, tf.cast(stop, tf.float32), count, share)
        model.optimizer.apply(gradients, model.trainable_variables)
        return model.compute_metrics(x, y, outputs, sample_weight=sample_weight), stops

    def _compute(self, x, y, sample_weight, weight, states):
        """Loss, outputs, gradients and the states after; no variable is written."""
        import tensorflow as tf

        model = self.model
        with tf.GradientTape() as tape:
            # In such a scope Keras looks for penalized variables among those of the mapping alone.
            penalized = [
                (variable, variable.value)
                for variable in model.trainable_variables
                if variable.regularizer is not None
            ]
            with keras.StatelessScope(
                [*zip(self.states, states, strict=True), *penalized], collect_losses=True
            ) as scope:
                outputs = model(x, training=True) if model._call_has_training_arg else model(x)
                loss = model._compute_loss(
                    x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True
                )
                scaled = model.optimizer.scale_loss(loss * tf.cast(weight, loss.dtype))
        gradients = tape.gradient(
            scaled, [variable.value for variable in model.trainable_variables]
        )
        return loss, outputs, gradients, [scope.get_current_value(state) for state in self.states]

    def _exchange(self, context, states, stop, count, share):
        """Averages the float states over the replicas in one all-reduce, writes all states, and
        counts the stops.
        """
        import tensorflow as tf

        floats = [place for place, state in enumerate(states) if state.dtype.is_floating]
        wide = (
            tf.float64 if any(states[place].dtype == tf.float64 for place in floats) else tf.float32
        )
        # An empty share has no statistics of its own.
        own = [
            tf.where(
                count > 0, tf.reshape(tf.cast(states[place], wide), [-1]) * tf.cast(share, wide), 0
            )
            for place in floats
        ]
        packed = tf.concat([*own, tf.cast(stop, wide)[tf.newaxis]], 0)
        if context.num_replicas_in_sync > 1:
            packed = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
        *parts, stops = tf.split(
            packed, [states[place].shape.num_elements() for place in floats] + [1]
        )
        for place, part in zip(floats, parts, strict=True):
            states[place] = tf.cast(tf.reshape(part, states[place].shape), states[place].dtype)

        def write(strategy, *values):
            for state, value in zip(self.states, values, strict=True):
                strategy.extended.update(
                    state.value,
                    lambda variable, value: variable.assign(value),
                    args=(value,),
                    group=False,
                )

        # The way Keras's optimizers write variables of strategies with and without merge calls.
        tf.__internal__.distribute.interim.maybe_merge_call(
            write, tf.distribute.get_strategy(), *states
        )
        return stops[0]


def _dense(gradient):
    """What an embedding gives is no tensor, and cannot be added to another."""
    import tensorflow as tf

    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient
