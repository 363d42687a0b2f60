"""The optimizer of a configuration, the loss and the metrics, by their names."""

from typing import Any

import keras

from keras_ic.training.config import TrainingConfig

DROPS = (0.4, 0.6, 0.8)  # when the next tenth begins, as a share of all steps
RISE, START = 0.3, 1 / 25  # of one cycle: the share of the steps that go up, and where they start


def optimizer(config: TrainingConfig, steps: int, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer of a run of `steps` steps in all.

    Args:
        config: The `TrainingConfig`.
        steps: Integer above 0, the steps of all epochs.
        model: The model, whose kernels alone decay with `decoupled_weight_decay`.

    Returns:
        A Keras optimizer, not built.

    Example:

    ```python
    from keras_ic.training import TrainingConfig, network, optimizer

    config = TrainingConfig(model="resnet8", optimizer="sgd", learning_rate=0.1)
    assert optimizer(config, 200 * 782, network(config, (32, 32, 3), 10)).momentum == 0.9
    ```
    """
    decay = config.decoupled_weight_decay or None
    common: dict[str, Any] = {"weight_decay": decay}
    if config.ema:
        common.update(use_ema=True, ema_momentum=config.ema)
    schedule = learning_rate(config, steps)
    if config.optimizer == "adam":
        made = keras.optimizers.Adam(schedule, **common)
    else:
        made = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, **common)
    if decay:
        others = [each for each in model.trainable_variables if "kernel" not in each.name]
        made.exclude_from_weight_decay(var_list=others)
    return made


def learning_rate(config: TrainingConfig, steps: int) -> Any:
    """The learning rate of a run of `steps` steps in all: a number if it is constant, else a Keras
    schedule.
    """
    top = config.scaled_learning_rate
    schedules = keras.optimizers.schedules
    if config.schedule == "steps":
        boundaries = [round(share * steps) - 1 for share in DROPS]
        return schedules.PiecewiseConstantDecay(boundaries, [top, top / 10, top / 100, top / 1000])
    if config.schedule == "cosine":
        warm = round(config.warmup_epochs * steps / config.epochs)
        rise = {"warmup_target": top, "warmup_steps": warm} if warm else {}
        return schedules.CosineDecay(0.0 if warm else top, steps - warm, **rise)
    if config.schedule == "one-cycle":  # Smith and Topin, 1708.07120
        return schedules.CosineDecay(
            START * top, (1 - RISE) * steps, warmup_target=top, warmup_steps=RISE * steps
        )
    return top


def compile_for(
    model: keras.Model,
    config: TrainingConfig,
    steps: int,
    is_one_hot: bool,
    jit_compile: bool | str = "auto",
) -> None:
    """Compiles a model as the configuration has it, for `steps` steps in all, and builds its
    optimizer.

    Metrics are weighted, so that what fills up the last batches of a validation does not count.
    `cross_entropy` is the loss without penalties and without smoothing.
    """
    classes = model.output_shape[-1]
    if is_one_hot:
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        )
        cross_entropy, top_k = (
            keras.metrics.CategoricalCrossentropy,
            keras.metrics.TopKCategoricalAccuracy,
        )
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        cross_entropy, top_k = (
            keras.metrics.SparseCategoricalCrossentropy,
            keras.metrics.SparseTopKCategoricalAccuracy,
        )
    metrics = ["accuracy", cross_entropy(from_logits=True, name="cross_entropy")]
    if classes > 10:
        metrics.append(top_k(5, name="top5"))
    made = optimizer(config, steps, model)
    model.compile(made, loss, weighted_metrics=metrics, jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
