"""Interleaved range variants of asymmetric numeral systems: many symbols at a time, in numpy.

Streams of symbols are coded side by side, a step of all of them at once (Duda, "Asymmetric numeral
systems", 2013; Giesen, "Interleaved entropy coders", 2014): states of 32 bits, words of 16, shares
of 2^14. Integers only: the same bytes on every machine. A coder ends where a decoder begins, with
known states: a decoder that does not end in them has read something else than was coded.
"""

from __future__ import annotations

from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.errors import BadPackage

SHARE_BITS = 14
CERTAIN = 1 << SHARE_BITS
#: Most bits that go as they are in one step.
MAX_PLAIN = 16

Words: TypeAlias = NDArray[np.uint64]

_WORD = np.uint64(16)
_LEAST = np.uint64(1 << 16)
_TOP = 32 - SHARE_BITS
_SHARE = np.uint64(SHARE_BITS)
_SLOT = np.uint64(CERTAIN - 1)
_READ_WORDS = 1 << 15

# A slot: its token's share (15 bits), how many of the token's come before it (14), from bit 46 the
# token's class (3), and the token (15).
_START_AT, _CLASS_AT, _TOKEN_AT = np.uint64(15), np.uint64(32), np.uint64(49)
_SHARE_MASK = np.uint64((1 << 15) - 1)
_CLASS_MASK = np.uint64(7 << SHARE_BITS)


class LaneEncoder:
    """Steps in, the last one first; bytes out."""

    def __init__(self, lanes: int) -> None:
        self._states = np.full(lanes, _LEAST)
        self._words: list[NDArray[np.uint16]] = []

    def put(self, shares: Words, starts: Words) -> None:
        """A step: of each of the first lanes its token's share, and the sum of those before it."""
        states = self._states[: shares.size]
        self._move(states, shares << np.uint64(_TOP))
        quotients, rests = np.divmod(states, shares)
        states[:] = (quotients << _SHARE) + rests + starts

    def plain(self, values: Words, bits: int) -> None:
        """A step of integers below 2^bits as they are."""
        states = self._states[: values.size]
        self._move(states, np.full(values.size, np.uint64(1 << 32 - bits)))
        states[:] = states << np.uint64(bits) | values

    def finish(self) -> bytes:
        """The states, then words in the order in which they are read."""
        words = np.concatenate([np.empty(0, np.uint16), *reversed(self._words)])
        return self._states.astype("<u4").tobytes() + words.astype("<u2").tobytes()

    def _move(self, states: Words, limits: Words) -> None:
        full = np.flatnonzero(states >= limits)
        if full.size:
            self._words.append(states[full].astype(np.uint16))
            states[full] >>= _WORD


class LaneDecoder:
    """The steps back, the first one first. Raises BadPackage where words are missing."""

    def __init__(self, file: BinaryIO, lanes: int) -> None:
        self._file = file
        data = file.read(4 * lanes)
        if len(data) < 4 * lanes:
            raise BadPackage("malformed", "coded data end too early")
        self._states = np.frombuffer(data, "<u4").astype(np.uint64)
        if (self._states < _LEAST).any():
            raise BadPackage("malformed", "coded data do not begin as they should")
        self._words, self._at = np.empty(0, np.uint64), 0

    def read(self, slots: Words, bits: int, steps: int, before: Words) -> Words:
        """So many steps of the first lanes, as `slots` says: (steps, lanes).

        A value is its token, and `bits` that were coded as they are after it. `before` has for each
        lane the class that it goes on with, times CERTAIN, and is replaced.
        """
        out = np.empty((steps, before.size), np.uint64)
        states = self._states[: before.size]
        plain, low = np.uint64(bits), np.uint64((1 << bits) - 1)
        for step in range(steps):
            entries = slots[before + (states & _SLOT)]
            states >>= _SHARE
            states *= entries & _SHARE_MASK
            states += entries >> _START_AT & _SLOT
            np.bitwise_and(entries >> _CLASS_AT, _CLASS_MASK, out=before)
            np.right_shift(entries, _TOKEN_AT, out=out[step])
            self._fill(states)
            if bits:
                out[step] = out[step] << plain | states & low
                states >>= plain
                self._fill(states)
        return out

    def finish(self) -> None:
        """Raise BadPackage unless all was read, and by the tables by which it was coded."""
        if self._at < self._words.size or self._file.read(1):
            raise BadPackage("malformed", "coded data go on after their end")
        if (self._states != _LEAST).any():
            raise BadPackage("malformed", "coded data are damaged")

    def _fill(self, states: Words) -> None:
        """Move words into the states that are too small."""
        empty = np.flatnonzero(states < _LEAST)
        if self._words.size - self._at < empty.size:
            self._more(empty.size)
        words = self._words[self._at : self._at + empty.size]
        self._at += empty.size
        states[empty] = states[empty] << _WORD | words

    def _more(self, needed: int) -> None:
        data = self._file.read(2 * _READ_WORDS)
        left = self._words[self._at :]
        if left.size + len(data) // 2 < needed or len(data) % 2:
            raise BadPackage("malformed", "coded data end too early")
        self._words = np.concatenate((left, np.frombuffer(data, "<u2").astype(np.uint64)))
        self._at = 0


def slots(shares: NDArray[np.int64], classes: NDArray[np.int64]) -> Words:
    """What a decoder looks up, one part after the other for each class of what came before.

    `shares` (classes, tokens) of CERTAIN in all, `classes` (tokens) those of the tokens themselves.
    """
    parts = []
    for row in shares:
        tokens = np.repeat(np.arange(row.size), row)
        within = np.arange(CERTAIN) - np.repeat(np.cumsum(row) - row, row)
        entry = row[tokens] | within << 15 | classes[tokens] << 32 + SHARE_BITS | tokens << 49
        parts.append(entry.astype(np.uint64))
    return np.concatenate(parts)
