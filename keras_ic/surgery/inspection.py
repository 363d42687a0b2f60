"""What is in a model, as far as the rewriting cares: what stands before each weight layer."""

import dataclasses

import keras

from keras_ic.surgery.graph import read
from keras_ic.surgery.layer_traits import (
    WEIGHT_LAYERS,
    is_batch_normalization,
    is_ic,
    is_identity_at_inference,
    is_shape_step,
    unwrap,
)
from keras_ic.utils import text_table


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of interest.

    Attributes:
        layer: The path of the layer, `outer/inner/name` inside nested models.
        type: The name of its class.
        reads: What stands directly before a weight layer, but for shape-only steps and dropout.
        state: For an IC layer, its rate, and whether its moving statistics have been set.
    """

    layer: str
    type: str
    reads: str = ""
    state: str = ""


def inspect(model: keras.Model) -> list[Row]:
    """Lists the weight layers, IC layers and BatchNormalization layers of a model, and what each
    weight layer reads.

    Args:
        model: A Sequential or Functional model, built.

    Returns:
        A list of `Row`, in the order in which the model runs.

    Raises:
        ValueError: For a subclassed or unbuilt model.

    Example:

    ```python
    import keras
    import keras_ic
    from keras_ic.surgery.inspection import inspect

    model = keras.Sequential(
        [keras.Input((4,)), keras_ic.IC(0.1, name="ic"), keras.layers.Dense(2, name="dense")]
    )
    assert [row.layer for row in inspect(model)] == ["ic", "dense"]
    assert inspect(model)[1].reads == "ic"
    ```
    """
    rows = []
    for graph, call, path in read(model).walk():
        layer = unwrap(call.operation)
        kind = type(layer).__name__
        if is_ic(call.operation):
            rows.append(Row(path, kind, state=f"rate {layer.rate:g}, {_statistics(layer)}"))
        elif is_batch_normalization(call.operation):
            rows.append(Row(path, kind, state=_statistics(layer)))
        elif isinstance(layer, WEIGHT_LAYERS):
            before = graph.producer(call.inputs[0])
            while before and (is_shape_step(before) or is_identity_at_inference(before)):
                before = graph.producer(before.inputs[0])
            reads = before.operation.name if before else "an input of its model"
            rows.append(Row(path, kind, reads))
    return rows


def text(model: keras.Model) -> str:
    """The rows of `inspect` as a table."""
    rows = [dataclasses.astuple(row) for row in inspect(model)]
    return (
        f"{model.name}: {model.count_params():,}"
        f" parameters\n{text_table.text(('Layer', 'Type', 'Reads', 'State'), rows)}"
    )


def _statistics(layer) -> str:
    untouched = not layer.moving_mean.numpy().any() and (layer.moving_variance.numpy() == 1).all()
    return "statistics as initialized" if untouched else "statistics set"
