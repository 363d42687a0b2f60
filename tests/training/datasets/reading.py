"""Batches of a data set as arrays."""

import itertools


def batches(dataset, count=None):
    return [
        tuple(part.numpy() for part in batch) for batch in itertools.islice(iter(dataset), count)
    ]
