"""Every private name of Keras that the package uses, each with what it stands for.

`tests/utils/test_keras_internals.py` has one canary a name: it fails when Keras changes it.
"""

from typing import Any

import keras
from keras.src.backend.common.tensor_attributes import get_tensor_attr
from keras.src.trainers import data_adapters

# --- layers ---------------------------------------------------------------------------------------


def sublayers(layer: keras.layers.Layer) -> list:
    """The layer and every layer it is made of, in the order in which it tracks them."""
    return list(layer._flatten_layers())


def direct_sublayers(layer: keras.layers.Layer) -> list:
    """The layers that a layer is made of, without those that these are made of."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


# --- tensors --------------------------------------------------------------------------------------


def mask_of(tensor: Any) -> Any:
    """The mask that a tensor carries, or None."""
    return get_tensor_attr(tensor, "_keras_mask")


# --- data -----------------------------------------------------------------------------------------


def data_adapter(data: Any, batch_size: int | None) -> Any:
    """What gives the batches that `fit` would see of the data: `num_batches` (None if it is not
    known), `get_numpy_iterator()`, and `on_epoch_begin()` and `on_epoch_end()` around it.
    """
    return data_adapters.get_data_adapter(data, batch_size=batch_size)


def evaluate_again(model: keras.Model) -> dict[str, float]:
    """Evaluates the model on the validation data of the `fit` that runs; for a callback's
    `on_test_end`.

    `fit` keeps its validation data in an attribute of the model, which `evaluate` uses if told so.
    """
    return model.evaluate(verbose=0, return_dict=True, _use_cached_eval_dataset=True)
