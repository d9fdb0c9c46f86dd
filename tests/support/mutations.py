"""Damage to bytes, as disks, networks and enemies do it."""

import numpy as np

KINDS = ("flip", "truncate", "extend", "splice")


def mutated(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Return the data with one to four mutations of KINDS; what is spliced in comes from itself or from `other`."""
    changed = bytearray(data)
    for _ in range(1 if random.random() < 0.7 else int(random.integers(2, 5))):
        kind, at = KINDS[random.integers(len(KINDS))], int(random.integers(len(changed) + 1))
        if kind == "flip" and at < len(changed):
            changed[at] ^= 1 << int(random.integers(8)) if random.random() < 0.5 else int(random.integers(1, 256))
        elif kind == "truncate":
            del changed[at:]
        elif kind == "extend":
            changed += random.bytes(int(random.integers(1, 41)))
        elif kind == "splice":
            source = data if random.random() < 0.5 else other
            first, length = int(random.integers(len(source) + 1)), int(random.integers(1, 65))
            changed[at : at + length] = source[first : first + int(random.integers(1, 65))]
    return bytes(changed)


def single_mutations(data: bytes, random: np.random.Generator, count: int) -> list[bytes]:
    """Return `count` copies of the data, each with one small mutation of KINDS that changes it."""
    found: list[bytes] = []
    while len(found) < count:
        changed = bytearray(data)
        kind, at = KINDS[random.integers(len(KINDS))], int(random.integers(len(data)))
        if kind == "flip":
            changed[at] ^= 1 << int(random.integers(8))
        elif kind == "truncate":
            del changed[at:]
        elif kind == "extend":
            changed += random.bytes(int(random.integers(1, 9)))
        else:
            other = int(random.integers(len(data)))
            changed[at : at + 16] = data[other : other + 16]
        if bytes(changed) != data:
            found.append(bytes(changed))
    return found
