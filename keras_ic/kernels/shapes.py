"""Shape arithmetic that every kernel shares."""

from typing import Any

from keras import ops


def reduction_axes(rank: int, axis: int) -> list[int]:
    """All axes of a tensor but the channel axis."""
    return [i for i in range(rank) if i != axis % rank]


def channel_shape(rank: int, axis: int) -> list[int]:
    """The shape that lines a vector of channels up with `axis`."""
    shape = [1] * rank
    shape[axis] = -1
    return shape


def mask_of_rank(mask: Any, rank: int) -> Any:
    """A mask as booleans, with an axis of size 1 for each axis that it lacks; None stays None."""
    if mask is None:
        return None
    ones = [1] * (rank - len(mask.shape))
    return ops.reshape(ops.cast(mask, "bool"), (*ops.shape(mask), *ones))


def first_example(rank: int, axis: int) -> tuple[slice, ...]:
    """The index of the first entry of the first axis that is not the channel axis.

    Sums about its mean keep their digits: it is one of n entries, so its distance from the mean is
    at most `sqrt(n)` standard deviations, and what cancels costs the variance n roundings at most.
    """
    first = reduction_axes(rank, axis)[0]
    return tuple(slice(0, 1) if i == first else slice(None) for i in range(rank))
