"""The generator behind the masks on JAX."""

import numpy as np
import pytest

pytest.importorskip("jax")

from keras_ic.kernels.threefry import threefry

# From the known answers that Salmon et al. publish with Random123: counter, key, result.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    words = threefry(np.array(key, "uint32"), [np.array([value], "uint32") for value in counter])
    assert tuple(int(word[0]) for word in words) == expected


def test_the_same_bits_as_in_jax():
    from jax.extend.random import threefry_2x32

    key, count = np.array([123, 456], "uint32"), np.arange(1000, dtype="uint32")
    ours = threefry(key, [count, count + np.uint32(1000)])
    theirs = threefry_2x32(key, np.concatenate([count, count + np.uint32(1000)]))
    np.testing.assert_array_equal(np.concatenate(ours), theirs)
