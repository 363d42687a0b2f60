"""The rows of a plan, and how a plan prints."""

import dataclasses
from typing import Any

import keras

from keras_ic.surgery import table


@dataclasses.dataclass(frozen=True)
class Change:
    """One row of a plan: what becomes of one call of one layer.

    Attributes:
        layer: The path of the layer, `outer/inner/name` inside nested models.
        type: The name of its class.
        kind: `"ic"`, `"normalization"` or `"bias"`; in a folding also `"affine"`, `"activation"`
            and `"dropout"`.
        result: What becomes of it, in words.
        name: The name of the new layer, if there is one.
        rate: The rate of the new IC layer, if there is one.
    """

    layer: str
    type: str
    kind: str
    result: str
    name: str | None = None
    rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Skip:
    """One row of a plan: a layer that stays as it is, and why.

    Attributes:
        layer: The path of the layer, `outer/inner/name` inside nested models.
        type: The name of its class.
        reason: Why it stays, in words.
    """

    layer: str
    type: str
    reason: str


class Listing:
    """What is done to a model, as rows. Prints as a table.

    Attributes:
        model: The given model.
        changes: List of `Change`, in the order in which the model runs.
        skipped: List of `Skip`.
        parameters: `(before, after)`, numbers of weights, moving statistics included.
        flops: `(before, after)`, floating-point operations of inference on one sample: a
            multiplication and an addition are two; weight layers and normalizations are counted;
            sizes that the model leaves open count as 1.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.changes: list[Change] = []
        self.skipped: list[Skip] = []
        self.parameters = (0, 0)
        self.flops = (0, 0)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "model": self.model.name,
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "skipped": [dataclasses.asdict(skip) for skip in self.skipped],
            "parameters": {"before": self.parameters[0], "after": self.parameters[1]},
            "flops": {"before": self.flops[0], "after": self.flops[1]},
        }

    def __str__(self) -> str:
        rows = [(row.layer, row.type, row.result) for row in self.changes] + [
            (row.layer, row.type, f"- {row.reason}") for row in self.skipped
        ]
        (old, new), (old_flops, new_flops) = self.parameters, self.flops
        footer = f"parameters {old:,} -> {new:,}; FLOPs a sample {old_flops:,} -> {new_flops:,}"
        cells = table.text(("Layer", "Type", "What becomes of it"), rows)
        return f"{self.model.name}\n{cells}\n{footer}"
