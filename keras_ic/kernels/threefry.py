"""ThreeFry-2x32 with 20 rounds (Salmon et al., 2011), written out for XLA.

`jax.random` has the same generator; on CPUs it runs its rounds as a loop over whole arrays in
memory. Written out, XLA makes one vectorized loop of all rounds and of what reads the words, on
every device, and each device of a mesh computes its own part.
"""

import jax.numpy as jnp

PARITY = 0x1BD11BDA
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key, counter):
    """Two arrays of 32 random bits each, from two uint32 numbers and two uint32 arrays of one
    shape.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    first, second = counter[0] + keys[0], counter[1] + keys[1]
    for block in range(5):
        for rotation in ROTATIONS[block % 2]:
            first = first + second
            second = (second << jnp.uint32(rotation)) | (second >> jnp.uint32(32 - rotation))
            second = first ^ second
        first = first + keys[(block + 1) % 3]
        second = second + keys[(block + 2) % 3] + jnp.uint32(block + 1)
    return first, second
