import pytest

from keras_ic.tuning.pruning import is_poor

# Means over two epochs: 0.3, 0.4, 0.5, 0.6.
OTHERS = [[0.2, 0.4, 0.6], [0.3, 0.5, 0.7], [0.4, 0.6, 0.8], [0.5, 0.7, 0.9]]


@pytest.mark.parametrize(
    ("curve", "others", "poor"),
    [
        ([0.44, 0.1], OTHERS, True),
        ([0.46, 0.1], OTHERS, False),  # its best epoch counts
        ([0.1], OTHERS, False),  # too early
        ([0.1, 0.1], OTHERS[1:], False),  # too few to compare with
        ([0.1, 0.1, 0.1], [*OTHERS[1:], [0.2, 0.4]], False),  # the fourth ended before
        ([0.54, 0.1, 0.1], OTHERS, True),
        ([0.56, 0.1, 0.1], OTHERS, False),  # means over three epochs: 0.4, 0.5, 0.6, 0.7
    ],
)
def test_median_of_the_means_so_far(curve, others, poor):
    assert bool(is_poor(curve, others)) == poor
