"""Means and variances of several sets of values together."""

import numpy as np


def pool(first: tuple, second: tuple) -> tuple:
    """Mean, biased variance and number of values of two sets together (Chan et al., 1979)."""
    (mean_1, variance_1, count_1), (mean_2, variance_2, count_2) = first, second
    count = count_1 + count_2
    share = count_2 / np.maximum(count, 1)
    difference = mean_2 - mean_1
    variance = variance_1 + share * (variance_2 - variance_1) + share * (1 - share) * difference**2
    return mean_1 + share * difference, variance, count
