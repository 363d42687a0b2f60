"""Shape arithmetic that every kernel shares."""


def reduction_axes(rank: int, axis: int) -> list[int]:
    """All axes of a tensor but the channel axis."""
    return [i for i in range(rank) if i != axis % rank]


def channel_shape(rank: int, axis: int) -> list[int]:
    """The shape that lines a vector of channels up with `axis`."""
    shape = [1] * rank
    shape[axis] = -1
    return shape
