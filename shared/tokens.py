"""Symbols as tokens, and tokens in runs: what `shared.dense_coding` codes, and by which shares.

A token is a symbol without its lowest bits, less the least one. It is coded by the shares of the
tokens that stand behind one of its class: zero, above or below, or five with large ones apart. A
block of an array is dealt out in runs of neighbours, one a lane, so that all but the first of a run
know what they stand behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shared.lanes import CERTAIN, MAX_PLAIN

Integers = NDArray[np.int64]

#: Most tokens; what is finer goes as plain bits.
MAX_TOKENS = 1 << 9
#: Numbers of classes.
KINDS = (1, 3, 5)
MAX_LARGE = (1 << 8) - 1
#: Symbols of a block.
BLOCK = 1 << 17
#: A run has at least about so many.
_RUN = 64
#: About what a share costs to send, in bits.
_SHARE_COSTS = 8


@dataclass(frozen=True)
class Tokens:
    """How the symbols of an array are tokens: `(q >> shift) - low`, `count` of them.

    They have `kinds` classes; where those are five, from `large` on, up and down, they are large.
    """

    shift: int
    low: int
    count: int
    kinds: int = 1
    large: int = 0

    @classmethod
    def of(cls, symbols: Integers) -> Tokens | None:
        """The finest of an array that is not empty; None where they are too fine for a lane."""
        least, largest = int(symbols.min()), int(symbols.max())
        shift = 0
        while (largest >> shift) - (least >> shift) >= MAX_TOKENS:
            shift += 1
        if shift > MAX_PLAIN:
            return None
        low = least >> shift
        return cls(shift, low, (largest >> shift) - low + 1)

    def classes(self) -> Integers:
        """The class of each token."""
        values = np.arange(self.low, self.low + self.count)
        if self.kinds == 1:
            return np.zeros(self.count, np.int64)
        signs = np.sign(values) % 3
        apart = (self.kinds == 5) & (signs > 0) & (np.abs(values) >= self.large)
        return np.where(apart, signs + 2, signs)


@dataclass(frozen=True)
class Runs:
    """How a block is dealt out: `lanes` runs of `steps`, and one more for the first `longer`."""

    lanes: int
    steps: int
    longer: int

    @classmethod
    def of(cls, size: int, most: int) -> Runs:
        """Those of a block, in at most so many lanes."""
        lanes = min(most, 1 << max(size // _RUN, 1).bit_length() - 1)
        return cls(lanes, *divmod(size, lanes))

    @property
    def firsts(self) -> Integers:
        """Where each run begins."""
        lane = np.arange(self.lanes)
        return lane * self.steps + np.minimum(lane, self.longer)

    def step(self, number: int) -> Integers:
        """Which symbols of the block the lanes take in a step."""
        return self.firsts[: self.lanes if number < self.steps else self.longer] + number

    @property
    def all(self) -> range:
        """The numbers of the steps."""
        return range(self.steps + (self.longer > 0))


def blocks(size: int) -> list[slice]:
    """An array of that size, in blocks."""
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]


def behind(classes: Integers, block: Integers, runs: Runs) -> Integers:
    """The class that each token of a block stands behind; 0 at the beginning of a run."""
    out = np.empty_like(block)
    out[1:] = classes[block[:-1]]
    out[runs.firsts] = 0
    return out


def learnt(tokens: Tokens, values: Integers, lanes: int) -> tuple[Tokens, Integers]:
    """The classes that make least of an array of tokens, and the shares under them.

    Shares are (kinds, count), each row of CERTAIN in all.
    """
    middle = int(np.median(np.abs(values + tokens.low)))
    large = min(max(middle, 1), MAX_LARGE)
    tried = []
    for kinds in KINDS:
        chosen = replace(tokens, kinds=kinds, large=large if kinds == 5 else 0)
        counts = _counts(chosen, values, lanes)
        tried.append((_bits(counts) + _SHARE_COSTS * counts.size, chosen, counts))
    _, best, counts = min(tried, key=lambda found: found[0])
    return best, np.array([_shares(row) for row in counts])


def _counts(tokens: Tokens, values: Integers, lanes: int) -> Integers:
    """How often each token stands behind each class."""
    classes, counts = tokens.classes(), np.zeros(tokens.kinds * tokens.count, np.int64)
    for at in blocks(values.size):
        block = values[at]
        before = behind(classes, block, Runs.of(block.size, lanes))
        counts += np.bincount(before * tokens.count + block, minlength=counts.size)
    return counts.reshape(tokens.kinds, tokens.count)


def _bits(counts: Integers) -> float:
    totals = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    there = counts > 0
    return float((counts[there] * np.log2(totals[there] / counts[there])).sum())


def _shares(counts: Integers) -> Integers:
    """Counts as shares of CERTAIN, each at least 1 that is there; all for the first if none is."""
    total = int(counts.sum())
    if not total:
        return np.where(np.arange(counts.size) == 0, CERTAIN, 0)
    scaled = counts * CERTAIN
    shares = np.where(counts > 0, np.maximum(scaled // total, 1), 0)
    left = CERTAIN - int(shares.sum())
    if left > 0:
        shares[np.argsort(-(scaled % total), kind="stable")[:left]] += 1
    while left < 0:
        largest = int(shares.argmax())
        taken = min(-left, int(shares[largest]) // 2)
        shares[largest] -= taken
        left += taken
    return shares
