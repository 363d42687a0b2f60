"""Whether the forward pass runs once more, for the backward pass of gradient checkpointing."""

import sys
from types import FrameType

import keras


def recomputing() -> bool:
    """True inside `tf.recompute_grad` and `torch.utils.checkpoint` when they run a function again.

    JAX runs a function once: `jax.checkpoint` repeats what was traced, with the same random state.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        # It is -1 except in a backward pass, where nothing else calls a layer.
        return torch._C._current_graph_task_id() != -1
    if backend != "tensorflow":
        return False
    # TensorFlow has no flag. In `tf.recompute_grad`, this inner function makes the second call.
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "inner_recompute_grad":
            return True
        frame = frame.f_back
    return False
