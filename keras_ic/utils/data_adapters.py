"""The batches of whatever `fit` takes, checked against the inputs of a model."""

import itertools
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np

from keras_ic.utils.keras_internals import data_adapter
from keras_ic.utils.validation import positive_int


def checked_sizes(steps: Any, batch_size: Any) -> tuple[int | None, int | None]:
    """How many batches, and how large: each None or a positive integer."""
    return (
        None if steps is None else positive_int("steps", steps),
        None if batch_size is None else positive_int("batch_size", batch_size),
    )


def checked_repeatable(data: Any) -> Any:
    """`data`, if it can be read more than once."""
    if hasattr(data, "__next__"):
        raise ValueError(
            "`data` must give its batches again in each epoch, which a generator does not."
            f" Received: data of type {type(data).__name__}"
        )
    return data


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Puts back the global generators: the data may draw from them, and so does a Dropout without a
    seed on torch.
    """
    state, of_numpy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    with (
        torch.random.fork_rng(range(torch.cuda.device_count()))
        if torch is not None
        else nullcontext()
    ):
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(of_numpy)


def size_of(inputs: Any) -> int:
    """How many examples a batch has."""
    return next(len(leaf) for leaf in keras.tree.flatten(inputs) if leaf is not None)


def inputs_of(
    model: keras.Model,
    data: Any,
    steps: int | None,
    batch_size: int | None,
    verbose: int | str,
    all_steps: bool = True,
) -> Iterator[Any]:
    """The inputs of each batch, checked, with a progress bar.

    Args:
        model: A built `keras.Model`, whose inputs each batch must fit.
        data: What `fit` takes.
        steps: Positive integer, how many batches to read; None for all.
        batch_size: Positive integer, for arrays; None for 32.
        verbose: `"auto"` or 1 for a progress bar, 0 for none.
        all_steps: Boolean, whether fewer batches than `steps` are an error. Defaults to `True`.
    """
    steps, batch_size = checked_sizes(steps, batch_size)
    if verbose not in ("auto", 0, 1):
        raise ValueError(f'`verbose` must be "auto", 0 or 1. Received: verbose={verbose!r}')
    if steps is None and hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise ValueError(
            "`steps` must say how many batches to read of data without end. Received: steps=None,"
            f" data={data!r}"
        )
    adapter = _adapter(data, batch_size)
    limit = steps if steps is not None else adapter.num_batches
    bar = keras.utils.Progbar(limit, verbose=1 if verbose == "auto" else verbose)
    read = 0
    adapter.on_epoch_begin()
    for batch in itertools.islice(adapter.get_numpy_iterator(), limit):
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        _check_fits(model, inputs)
        yield inputs
        read += 1
        bar.update(read)
    adapter.on_epoch_end()
    if read == 0 or (all_steps and steps is not None and read < steps):
        raise ValueError(
            "`data` must hold at least one batch, and as many as `steps` says. Received:"
            f" steps={steps}, data of {read} batches"
        )
    if limit is None:
        bar.update(read, finalize=True)


def _adapter(data: Any, batch_size: int | None) -> Any:
    """Keras's adapter of the data."""
    given = keras.tree.flatten(data)
    if all(leaf is None for leaf in given) or any(
        getattr(leaf, "shape", None) == () for leaf in given
    ):
        raise ValueError(
            "`data` must be something that `fit` takes, arrays with a batch axis or batches."
            f" Received: data={data!r}"
        )
    shapes = [tuple(leaf.shape) for leaf in given if hasattr(leaf, "shape")]
    if len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            "`data` must have as many examples in each of its arrays. Received: arrays of shapes"
            f" {shapes}"
        )
    try:
        return data_adapter(data, batch_size)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`data` must be something that `fit` takes. {str(error)[:200]} Received: data of type"
            f" {type(data).__name__}"
        ) from error


def _check_fits(model, inputs) -> None:
    wanted = getattr(model, "inputs", None)
    if not wanted:
        return
    named = isinstance(inputs, dict) and all(tensor.name in inputs for tensor in wanted)
    given = [inputs[tensor.name] for tensor in wanted] if named else keras.tree.flatten(inputs)
    if len(given) == len(wanted) and all(
        _fits(tensor.shape, array) for tensor, array in zip(wanted, given, strict=True)
    ):
        return
    expected = ", ".join(f"{tensor.name}: {tuple(tensor.shape)}" for tensor in wanted)
    shapes = [None if array is None else tuple(array.shape) for array in given]
    raise ValueError(
        f"Each batch of `data` must fit the inputs of model {model.name!r}, {expected}. Received:"
        f" inputs of shapes {shapes}"
    )


def _fits(wanted: tuple, array) -> bool:
    if array is None:
        return True  # An optional input left out.
    shape = tuple(array.shape)
    if len(shape) != len(wanted):
        # Keras adds or drops a last axis of size 1.
        longer, shorter = (shape, wanted) if len(shape) > len(wanted) else (wanted, shape)
        return len(longer) == len(shorter) + 1 and longer[-1] == 1
    return all(size is None or size == given for size, given in zip(wanted, shape, strict=True))
