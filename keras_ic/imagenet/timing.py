"""How fast the training step is, without the images."""

import time
from typing import Any

import keras

from keras_ic import distribution
from keras_ic.imagenet import inputs
from keras_ic.imagenet.recipe import Recipe
from keras_ic.imagenet.setting import Setting, check_backend, prepared
from keras_ic.utils.validation import checked_int


def throughput(
    recipe: Recipe,
    strategy: Any = None,
    steps: int = 30,
    jit_compile: bool | str = "auto",
    classes: int = 1000,
) -> dict[str, float]:
    """Times the training step alone, on one and the same random images.

    Args:
        recipe: The `Recipe`.
        strategy: What `keras_ic.distribution.strategy` gave. Defaults to `None`: what it gives now.
        steps: Integer above 0, how many are timed, after 3 that are not. Defaults to `30`.
        jit_compile: As in `run`.
        classes: Integer above 0. Defaults to `1000`.

    Returns:
        Dictionary with `step_seconds`, the mean, and `images_per_second` on all replicas.

    Raises:
        ValueError: For an argument that the above excludes, or a batch that cannot be shared out
            evenly.
        NotImplementedError: On another backend than TensorFlow.

    Example:

    ```python
    import keras
    from keras_ic import distribution, imagenet

    recipe = imagenet.named("small", model="resnet8", batch=4, image_size=32)
    if keras.backend.backend() == "tensorflow":
        assert (
            imagenet.throughput(recipe, distribution.strategy("one"), steps=2, classes=10)[
                "images_per_second"
            ]
            > 0
        )
    ```
    """
    check_backend()
    steps = checked_int("steps", steps, "an integer above 0", lambda value: value > 0)
    classes = checked_int("classes", classes, "an integer above 0", lambda value: value > 0)
    strategy = distribution.strategy() if strategy is None else strategy
    setting = Setting(recipe, strategy, "auto")
    model = prepared(recipe, strategy, classes, steps, jit_compile)
    data = setting.distributed(
        lambda part, batch: inputs.synthetic(batch, recipe.image_size, classes)
    )
    times: list[float] = []

    def note(batch, logs):
        float(next(iter(logs.values())))  # waits for the step
        times.append(time.perf_counter())

    model.fit(
        data,
        steps_per_epoch=steps + 3,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)],
        verbose=0,
        shuffle=False,
    )
    seconds = (times[-1] - times[2]) / steps
    return {"step_seconds": seconds, "images_per_second": recipe.batch / seconds}
