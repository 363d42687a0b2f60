"""The dropout rate as a threshold on 16 random bits."""

BITS = 16


def drop_threshold(rate: float) -> int:
    """How many of the 65,536 values of 16 random bits mean "drop".

    At least one value is left to mean "keep".
    """
    return min(round(rate * 2**BITS), 2**BITS - 1)


def realized_rate(rate: float) -> float:
    """The rate that the masks have. It differs from the asked one by at most 2**-17, and by
    2**-16 above 1 - 2**-17.

    What is kept is divided by 1 minus this rate, so that its mean stays, however large the rate.
    """
    return drop_threshold(rate) / 2**BITS
