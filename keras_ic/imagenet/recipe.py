"""What makes two trainings on ImageNet the same: the data, the network, and how it is trained."""

import dataclasses
from typing import Any

from keras_ic.experiments.configuration import ALIASES
from keras_ic.utils.validation import (
    checked_bool,
    checked_choice,
    checked_int,
    checked_real,
    did_you_mean,
)

BASE_BATCH = 256  # the batch that `learning_rate` is for
RECIPES: dict[str, dict[str, Any]] = {
    # 90 epochs as Goyal et al. (2017), with the label smoothing and the cosine of He et al. (2018).
    "standard": {},
    # For a few classes and small images on a CPU, to see that everything works: minutes.
    "small": {
        "epochs": 12,
        "batch": 32,
        "image_size": 64,
        "learning_rate": 0.4,
        "warmup_epochs": 1,
        "label_smoothing": 0.0,
        "dtype": "float32",
    },
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training.

    The defaults are those of ResNet-50 in 90 epochs: SGD with Nesterov momentum 0.9, batches of
    1024, a learning rate of 0.1 for every 256 images of a batch, which is warmed up for 5 epochs
    and then falls as a cosine to 0, label smoothing 0.1, an L2 penalty on the kernels alone,
    bfloat16.

    Args:
        data: The name of a set of tensorflow-datasets, as `"imagenet2012"`, or the path of a
            folder; see `keras_ic.imagenet.find`. Defaults to `"imagenet2012"`.
        model: `"resnet50"` or `"resnet101"` (version 1.5); `"resnet20"` and its like,
            `keras_ic.applications.ResNet` for small images; or a network of `keras.applications`,
            such as `"MobileNetV2"`. Defaults to `"resnet50"`.
        order: `"usual"`, or `"relu-ic-conv"`, also called `"ic"`: its form with IC layers, by
            `keras_ic.rewrite`. Defaults to `"ic"`.
        rate: Float in `[0, 1)`, the IC layers' probability to drop a value. Defaults to `0.05`.
        seed: Integer in `[0, 2**19)`. Defaults to `0`.
        epochs: Integer above 0. Defaults to `90`.
        batch: Integer above 0, the images of a step on all replicas together. Defaults to `1024`.
        image_size: Integer of 32 or more, pixels of the sides of an image. Defaults to `224`.
        learning_rate: Float above 0, for every 256 images of the batch. Defaults to `0.1`.
        warmup_epochs: Integer from 0 to below `epochs`, in which the learning rate rises linearly
            from 0. Defaults to `5`.
        label_smoothing: Float in `[0, 1)`. Defaults to `0.1`.
        weight_decay: Float of 0 or more: half of it times the squares of the kernels is added to
            the loss; biases and normalizations are left alone. Defaults to `1e-4`.
        ema: Float in `[0, 1)`, the momentum of a moving average of the weights, which is tested and
            kept instead of them. Defaults to `0.0`: none.
        accumulate: Integer above 0, the parts in which a replica's share of a batch goes through
            the network. Defaults to `1`.
        synchronized: Boolean, whether statistics of a batch are taken over all replicas in every
            layer. Defaults to `False`: over each replica's share; the moving statistics are
            averaged over the replicas either way.
        dtype: `"float32"` or `"mixed_bfloat16"`. Defaults to `"mixed_bfloat16"`.

    Raises:
        ValueError: For an argument that the above excludes.

    Example:

    ```python
    from keras_ic.imagenet import Recipe

    recipe = Recipe(batch=512)
    assert recipe.top_learning_rate == 0.2 and recipe.order == "relu-ic-conv"
    ```

    References: Goyal et al., 2017 (1706.02677); He et al., 2018 (1812.01187); Chen et al., 2019
    (1905.05928).
    """

    data: str = "imagenet2012"
    model: str = "resnet50"
    order: str = "ic"
    rate: float = 0.05
    seed: int = 0
    epochs: int = 90
    batch: int = 1024
    image_size: int = 224
    learning_rate: float = 0.1
    warmup_epochs: int = 5
    label_smoothing: float = 0.1
    weight_decay: float = 1e-4
    ema: float = 0.0
    accumulate: int = 1
    synchronized: bool = False
    dtype: str = "mixed_bfloat16"

    def __post_init__(self):
        checked_choice("order", self.order, ("usual", "relu-ic-conv", "ic"))
        checked_choice("dtype", self.dtype, ("float32", "mixed_bfloat16"))
        values: dict[str, Any] = {"order": ALIASES.get(self.order, self.order)}
        for name in ("rate", "label_smoothing", "ema"):
            values[name] = checked_real(
                name, getattr(self, name), "a number in [0, 1)", lambda value: 0 <= value < 1
            )
        values["learning_rate"] = checked_real(
            "learning_rate", self.learning_rate, "a number above 0", lambda value: value > 0
        )
        values["weight_decay"] = checked_real(
            "weight_decay", self.weight_decay, "a number of 0 or more", lambda value: value >= 0
        )
        values["seed"] = checked_int(
            "seed", self.seed, "an integer in [0, 2**19)", lambda value: 0 <= value < 2**19
        )
        for name in ("epochs", "batch", "accumulate"):
            values[name] = checked_int(
                name, getattr(self, name), "an integer above 0", lambda value: value > 0
            )
        values["image_size"] = checked_int(
            "image_size", self.image_size, "an integer of 32 or more", lambda value: value >= 32
        )
        wanted = f"an integer from 0 to below the {self.epochs} epochs"
        values["warmup_epochs"] = checked_int(
            "warmup_epochs", self.warmup_epochs, wanted, lambda value: 0 <= value < self.epochs
        )
        values["synchronized"] = checked_bool("synchronized", self.synchronized)
        if values["order"] == "usual":
            values["rate"] = 0.0
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def top_learning_rate(self) -> float:
        """The learning rate after the warm-up, scaled linearly with the batch."""
        return self.learning_rate * self.batch / BASE_BATCH

    @property
    def name(self) -> str:
        """A name for the folder of a run."""
        rate = [] if self.order == "usual" else [f"{self.rate:g}"]
        data = self.data.rstrip("/").rpartition("/")[2]
        return "-".join(
            [
                data,
                self.model,
                self.order,
                *rate,
                f"{self.image_size}px",
                f"{self.epochs}epochs",
                f"seed{self.seed}",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them."""
        return dataclasses.asdict(self)

    def steps(self, examples: int) -> int:
        """The steps of an epoch of so many images; an error if there is none."""
        if examples < self.batch:
            raise ValueError(
                f"There are fewer images than in one batch. Received: {examples} images,"
                f" batch={self.batch}"
            )
        return examples // self.batch

    def share(self, replicas: int) -> int:
        """The images of a replica in a step; an error if they are not the same number for all, or
        not to be accumulated in equal parts.
        """
        if self.batch % (replicas * self.accumulate):
            unit = replicas * self.accumulate
            near = max(round(self.batch / unit), 1) * unit
            raise ValueError(
                f"The batch must be a multiple of the replicas times `accumulate`, {replicas} x"
                f" {self.accumulate}; {near} would be. Received: batch={self.batch}"
            )
        return self.batch // replicas


def named(name: str, **changes) -> Recipe:
    """A recipe by its name, with changes.

    Args:
        name: `"standard"` or `"small"`.
        **changes: Arguments of `Recipe` that are to be other than the recipe has them.

    Returns:
        The `Recipe`.

    Raises:
        ValueError: For another name, or a value that `Recipe` refuses.

    Example:

    ```python
    from keras_ic import imagenet

    assert imagenet.named("small", epochs=3).image_size == 64
    ```
    """
    checked_choice("recipe", name, RECIPES)
    values = {**RECIPES[name], **changes}
    known = [field.name for field in dataclasses.fields(Recipe)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(
            f"A recipe has no such argument{did_you_mean(unknown[0], known)} Received:"
            f" {unknown[0]}={values[unknown[0]]!r}"
        )
    if "epochs" in changes and "warmup_epochs" not in changes:
        usual = RECIPES[name].get("warmup_epochs", Recipe.warmup_epochs)
        values["warmup_epochs"] = (
            min(usual, max(changes["epochs"] - 1, 0))
            if isinstance(changes["epochs"], int)
            else usual
        )
    return Recipe(**values)
