"""What a training will take, before it is begun."""

import dataclasses
from typing import Any

import numpy as np

from keras_ic import distribution
from keras_ic.imagenet.building import network
from keras_ic.imagenet.recipe import Recipe
from keras_ic.imagenet.sources import find
from keras_ic.imagenet.timing import throughput

GIB = 2**30
MEASURED = 3  # steps, after those that compile
ON_CPU = 8  # images, lest a plan takes minutes


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """What a training will take. `str` of it is a table.

    Attributes:
        recipe: The `Recipe`.
        replicas: Integer, how many share a batch.
        share: Integer, the images of a replica in a step.
        images: Dictionary, the images of both splits.
        classes: Integer.
        steps: Integer, the steps of an epoch.
        parameters: Integer, the trainable parameters.
        memory: Dictionary of bytes on each replica: `weights` (with gradients and the optimizer's
            momentum), `activations` (of one accumulated part) and `input`.
        exchanged: Integer, bytes of gradients and moving statistics that each replica gives into
            the all-reduces of a step.
        step_seconds: Float, a replica's step as measured here; None if it was not.
        measured: Integer, the images of the measured step: `share` on a GPU or TPU, on a CPU at
            most 8, whose time is then scaled; 0 if it was not.
        hours: Float, the expected time of all epochs without tests and exchanges; None likewise.
    """

    recipe: Recipe
    replicas: int
    share: int
    images: dict[str, int]
    classes: int
    steps: int
    parameters: int
    memory: dict[str, int]
    exchanged: int
    step_seconds: float | None = None
    measured: int = 0
    hours: float | None = None

    def __str__(self):
        recipe, memory = self.recipe, self.memory
        time = "not measured"
        if self.hours is not None and self.step_seconds is not None:
            time = (
                f"{self.hours:.2g} h: {self.step_seconds:.3g} s a step on a device like this one"
                f" (timed with {self.measured} images), without exchanges and tests"
            )
        rows = {
            "images": (
                f"{self.images['train']:,} to train with, {self.images['validation']:,} to test"
                f" with, {self.classes:,} classes"
            ),
            "network": (
                f"{recipe.model}, {recipe.order}"
                + (f", rate {recipe.rate:g}" if recipe.rate else "")
                + f", {self.parameters:,} parameters"
            ),
            "batch": (
                f"{recipe.batch} on {self.replicas} replica(s): {self.share} on each, in"
                f" {recipe.accumulate} part(s)"
            ),
            "steps": (
                f"{self.steps:,} an epoch, {self.steps * recipe.epochs:,} in {recipe.epochs} epochs"
            ),
            "learning rate": (
                f"up to {recipe.top_learning_rate:g} in {recipe.warmup_epochs} epochs, then a"
                " cosine to 0"
            ),
            "memory": (
                f"about {sum(memory.values()) / GIB:.2f} GiB a replica: "
                + ", ".join(f"{name} {value / GIB:.2f}" for name, value in memory.items())
            ),
            "exchanged": f"{self.exchanged / 1e6:.1f} MB a step and replica",
            "expected time": time,
        }
        return "\n".join(f"{name:14} {text}" for name, text in rows.items())


def plan(
    recipe: Recipe, replicas: int = 1, data_dir: Any = None, measure: bool = True
) -> TrainingPlan:
    """Says what a training will take; trains nothing, but times a few steps of one replica.

    The memory is an estimate from above: every layer's output in the dtype of the computation, kept
    for the backward pass. XLA and the framework keep fewer of them, and need room of their own for
    convolutions.

    Args:
        recipe: The `Recipe`.
        replicas: Integer above 0, how many devices share the batch. Defaults to `1`.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: its own.
        measure: Boolean, whether to time a replica's step on this device. Defaults to `True`.

    Returns:
        A `TrainingPlan`.

    Raises:
        ValueError: If the batch cannot be shared out evenly, or there are fewer images than in one
            batch.
        MissingDataError: If the images are not there.
        NotImplementedError: With `measure`, on another backend than TensorFlow.

    Example:

    ```python
    import pathlib, tempfile
    import keras
    import numpy as np
    from keras_ic import imagenet

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / name, np.zeros((40, 40, 3)))

    plan = imagenet.plan(
        imagenet.named("small", data=str(folder), model="resnet8", batch=2, image_size=32),
        measure=False,
    )
    print(plan)
    assert plan.steps == 1 and plan.classes == 2
    ```
    """
    sources = {split: find(recipe.data, split, data_dir) for split in ("train", "validation")}
    share, classes = recipe.share(replicas), len(sources["train"].classes)
    steps = recipe.steps(sources["train"].examples)
    model = network(recipe, classes)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    moving = sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights)
    width = 2 if recipe.dtype == "mixed_bfloat16" else 4
    # Outputs that are another layer's output in another shape take no memory; counting them keeps
    # the estimate on the safe side.
    values = sum(
        int(np.prod(layer.output.shape[1:]))
        for layer in model._flatten_layers()
        if hasattr(layer, "output") and not hasattr(layer, "layers")
    )
    copies = 3 + bool(recipe.ema)  # weights, gradients, momentum, average
    memory = {
        "weights": 4 * (copies * trainable + moving),
        "activations": values * width * (share // recipe.accumulate),
        "input": 3 * share * recipe.image_size**2 * 3,  # two batches ahead
    }
    seconds, measured = None, 0
    if measure:
        import tensorflow as tf

        accelerated = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU")
        measured = share if accelerated else min(share, ON_CPU)
        alone = dataclasses.replace(
            recipe, batch=measured, accumulate=recipe.accumulate if accelerated else 1
        )
        seconds = (
            throughput(alone, distribution.strategy("one"), MEASURED, classes=classes)[
                "step_seconds"
            ]
            * share
            / measured
        )
    hours = None if seconds is None else seconds * steps * recipe.epochs / 3600
    images = {split: source.examples for split, source in sources.items()}
    exchanged = 4 * (trainable + moving)
    return TrainingPlan(
        recipe,
        replicas,
        share,
        images,
        classes,
        steps,
        trainable,
        memory,
        exchanged,
        seconds,
        measured,
        hours,
    )
