"""The dropout rate as a threshold on 16 random bits."""

BITS = 16


def drop_threshold(rate: float) -> int:
    """How many of the 65,536 values of 16 random bits mean "drop".

    The realized rate differs from the asked one by 2**-17 at the most. At least one value is left
    to mean "keep".
    """
    return min(round(rate * 2**BITS), 2**BITS - 1)
