"""Walks through the layers of a network, for the tests of what stands where."""

import keras
import numpy as np

WEIGHT_LAYERS = (keras.layers.Conv2D, keras.layers.Dense)


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def weight_layers(model):
    return [layer for layer in model.layers if isinstance(layer, WEIGHT_LAYERS)]


def producers(model):
    """Layer name -> the layers whose outputs it reads."""
    reads = {}
    for layer in model.layers:
        tensors = layer._inbound_nodes[0].input_tensors
        reads[layer.name] = [tensor._keras_history.operation for tensor in tensors]
    return reads


def path_into(model, name):
    """The kinds of layers between the weight layer, addition or concatenation before `name` and
    `name`, in the order in which they run.
    """
    reads = producers(model)
    kinds = []
    while len(reads[name]) == 1:
        (before,) = reads[name]
        kinds.insert(0, type(before).__name__.replace("IndependentComponent", "IC"))
        if isinstance(before, (*WEIGHT_LAYERS, keras.layers.Add, keras.layers.Concatenate)):
            break
        name = before.name
    return kinds
