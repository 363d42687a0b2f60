"""The generator of the masks on JAX."""

import numpy as np
import pytest

pytest.importorskip("jax")

from keras_ic.kernels.threefry import threefry

ONES, PI = (0xFFFFFFFF, 0xFFFFFFFF), (0x243F6A88, 0x85A308D3)
# From the known answers that Salmon et al. publish with Random123: rounds, counter, key, result.
KNOWN = [
    (13, (0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
    (13, ONES, ONES, (0xFD36D048, 0x2D17272C)),
    (13, PI, (0x13198A2E, 0x03707344), (0xBA3E4725, 0xF27D669E)),
    (20, (0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    (20, ONES, ONES, (0x1CB996FC, 0xBB002BE7)),
    (20, PI, (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("rounds", "counter", "key", "expected"), KNOWN)
def test_known_answers(rounds, counter, key, expected):
    counter = [np.array([value], "uint32") for value in counter]
    words = threefry(np.array(key, "uint32"), counter, rounds)
    assert tuple(int(word[0]) for word in words) == expected
