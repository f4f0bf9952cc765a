"""Seeded masks and bases: a counter generator on integers, the same bits on every machine.

Element `j` of the stream `(seed, name)` is SplitMix64 (Steele, Lea, Flood 2014) at counter `j`, so
that any range of it can be had without the ones before. Floating point is never involved.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)

#: Shares of selected elements are sent as integers out of this many.
SHARE_ONE = 1 << 32


def stream_key(seed: int, name: str) -> int:
    """The 64-bit start of the stream that belongs to one tensor under one seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")


def words(key: int, start: int, stop: int) -> NDArray[np.uint64]:
    """The 64-bit words `start:stop` of a stream."""
    counter = np.arange(start + 1, stop + 1, dtype=np.uint64)
    z = np.full(1, key, np.uint64) + counter * _GAMMA
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def signs(key: int, start: int, stop: int) -> NDArray[np.int64]:
    """+1 or -1 for each of the elements `start:stop`."""
    return 1 - 2 * (words(key, start, stop) >> np.uint64(63)).astype(np.int64)


def mask(key: int, start: int, stop: int, share: int) -> NDArray[np.bool_]:
    """Which of the elements `start:stop` are selected; `share` is out of SHARE_ONE."""
    return (words(key, start, stop) >> np.uint64(32)) < np.uint64(share)
