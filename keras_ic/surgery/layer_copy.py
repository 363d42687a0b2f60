"""Copies of layers and operations: of the same configuration, without weights, in no graph."""

import keras

from keras_ic.utils.keras_internals import SafeModeScope, without_calls


def copy_operation(operation):
    """A new layer or operation of the same configuration and name, without weights yet, in no
    graph.
    """
    if not isinstance(operation, keras.layers.Layer):
        # Operations have no state but their arguments, which not all of them can give back as a
        # configuration.
        return without_calls(operation)
    return copy_layer(operation, {})


def copy_layer(layer, changes: dict):
    """A new layer from the configuration of `layer`, with `changes` made to it; to that of the
    layer inside `TimeDistributed`.
    """
    if type(layer) is keras.layers.Lambda:
        # A function that went through a configuration has lost the globals it reads. The
        # configuration is still asked for the rest.
        common = keras.layers.Layer.get_config(layer)
        return keras.layers.Lambda(
            layer.function,
            output_shape=layer._output_shape,
            mask=layer.mask,
            arguments=layer.arguments,
            **common,
        )
    try:
        # The configuration comes from the model in memory, not from a file.
        with SafeModeScope(False):
            config = changed = {**layer.get_config()}
            inner = layer
            while isinstance(inner, keras.layers.TimeDistributed):
                inner, changed = inner.layer, changed["layer"]["config"]
            changed.update(changes)
            return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Layer {layer.name!r} cannot be built anew from its configuration; its class needs"
            " `get_config` and `from_config` that give back every argument of its constructor."
            f" Received: layer of type {type(layer).__name__}, and: {error}"
        ) from error
