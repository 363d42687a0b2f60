"""ThreeFry-2x32 (Salmon et al., 2011), written out for XLA.

`jax.random` has the same generator; on CPUs it runs its rounds as a loop over whole arrays in
memory. Written out, XLA makes one vectorized loop of all rounds and of what reads the words, on
every device, and each device of a mesh computes its own part.
"""

import jax.numpy as jnp

PARITY = 0x1BD11BDA
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


def threefry(key, counter, rounds=13):
    """Two arrays of 32 random bits each, from two uint32 numbers and two uint32 arrays of one
    shape. 13 rounds are the fewest that pass BigCrush (Salmon et al., 2011).
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    first, second = counter[0] + keys[0], counter[1] + keys[1]
    for done in range(rounds):
        rotation = ROTATIONS[done % 8]
        first = first + second
        second = (second << jnp.uint32(rotation)) | (second >> jnp.uint32(32 - rotation))
        second = first ^ second
        block, within = divmod(done + 1, 4)
        if within == 0:
            first = first + keys[block % 3]
            second = second + keys[(block + 1) % 3] + jnp.uint32(block)
    return first, second
