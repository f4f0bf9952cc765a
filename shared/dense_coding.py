"""Arrays of which few symbols are zero, by shares in lanes; others by `shared.neighbour_coding`.

    u32     length of the next part, little-endian
    bytes   a range coder's: for each array whether it is dense. If so, its size, how its symbols
            are tokens (see `shared.tokens`), and all shares as one array; if not, its symbols
    u8      logarithm of the number of lanes
    lanes   states and words; see `shared.lanes`

A decoder holds a block of symbols, the table of one array and 64 kB of words.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from shared import neighbour_coding
from shared.errors import BadPackage
from shared.lanes import CERTAIN, MAX_PLAIN, LaneDecoder, LaneEncoder, slots
from shared.range_coder import CERTAIN as SURE
from shared.range_coder import Decoder, Encoder
from shared.tokens import BLOCK, KINDS, Integers, Runs, Tokens, behind, blocks, learnt

_EVEN = SURE // 2
_SIZE_BITS, _SHIFT_BITS, _LOW_BITS, _COUNT_BITS, _KIND_BITS, _LARGE_BITS = 32, 5, 31, 9, 2, 8
_OFFSET = 1 << 30
#: Logarithms: most lanes, and how many symbols each is worth its state of 4 bytes for.
_MOST_LANES, _WORTH = 10, 13
#: Symbols other than zero that the other arrays may have together: they are decoded one by one.
_MOST_SINGLE = 1 << 16
#: An array of as many, and one in so many, is worth its shares; none of less than the last is.
_MANY, _OFTEN, _LEAST = 1 << 12, 8, 1 << 8


def encode(arrays: list[Integers]) -> tuple[bytes, bytes]:
    """The range coder's part, and the lanes' with the logarithm before it."""
    tokens = _dense(arrays)
    log = _lanes_log(sum(a.size for a, dense in zip(arrays, tokens, strict=True) if dense))
    encoder = Encoder()
    others = neighbour_coding.ArrayEncoder(encoder)
    coded: list[tuple[Tokens, Integers, Integers]] = []
    for array, own in zip(arrays, tokens, strict=True):
        encoder.decide(own is not None, _EVEN)
        if own is None:
            others.encode(array)
            continue
        own, shares = learnt(own, (array >> own.shift) - own.low, 1 << log)
        _put(encoder, array.size, own)
        others.encode(shares.reshape(-1))
        coded.append((own, shares, array))
    lanes = LaneEncoder(1 << log)
    for own, shares, array in reversed(coded):
        for at in reversed(blocks(array.size)):
            _encode_block(lanes, own, shares, array[at], 1 << log)
    return encoder.finish(), bytes([log]) + lanes.finish()


def _lanes_log(size: int) -> int:
    """For so many symbols in lanes."""
    return min(max(size.bit_length() - _WORTH, 0), _MOST_LANES)


def _dense(arrays: list[Integers]) -> list[Tokens | None]:
    """How those arrays are tokens that go in lanes: dense ones, and more while many are left."""
    others = [int(np.count_nonzero(array)) for array in arrays]
    out: list[Tokens | None] = [None] * len(arrays)
    left = sum(others)
    for i in sorted(range(len(arrays)), key=lambda i: -others[i]):
        dense = others[i] >= _MANY and others[i] * _OFTEN >= arrays[i].size
        if others[i] >= _LEAST and (dense or left > _MOST_SINGLE):
            out[i] = Tokens.of(arrays[i])
            left -= others[i] if out[i] else 0
    return out


def _encode_block(
    lanes: LaneEncoder, tokens: Tokens, shares: Integers, symbols: Integers, most: int
) -> None:
    values = (symbols >> tokens.shift) - tokens.low
    runs = Runs.of(values.size, most)
    before = behind(tokens.classes(), values, runs)
    starts = np.cumsum(shares, axis=1) - shares
    share = shares[before, values].astype(np.uint64)
    start = starts[before, values].astype(np.uint64)
    rest = (symbols & (1 << tokens.shift) - 1).astype(np.uint64)
    for number in reversed(runs.all):
        at = runs.step(number)
        if tokens.shift:
            lanes.plain(rest[at], tokens.shift)
        lanes.put(share[at], start[at])


def _put(encoder: Encoder, size: int, tokens: Tokens) -> None:
    encoder.plain(size, _SIZE_BITS)
    encoder.plain(tokens.shift, _SHIFT_BITS)
    encoder.plain(tokens.low + _OFFSET, _LOW_BITS)
    encoder.plain(tokens.count - 1, _COUNT_BITS)
    encoder.plain(KINDS.index(tokens.kinds), _KIND_BITS)
    encoder.plain(tokens.large, _LARGE_BITS)


def _take(decoder: Decoder) -> tuple[int, Tokens]:
    size = decoder.plain(_SIZE_BITS)
    shift, low = decoder.plain(_SHIFT_BITS), decoder.plain(_LOW_BITS) - _OFFSET
    count, kind = decoder.plain(_COUNT_BITS) + 1, decoder.plain(_KIND_BITS)
    if shift > MAX_PLAIN or kind >= len(KINDS) or abs(low) + count > _OFFSET >> shift:
        raise BadPackage("malformed", "tokens are out of their range")
    return size, Tokens(shift, low, count, KINDS[kind], decoder.plain(_LARGE_BITS))


class ArrayDecoder:
    """The arrays back, one after the other, each in pieces of any size. Raises BadPackage."""

    def __init__(self, data: bytes, file: BinaryIO) -> None:
        self._decoder = Decoder(data)
        self._others = neighbour_coding.ArrayDecoder(self._decoder)
        log = file.read(1)
        if not log or log[0] > _MOST_LANES:
            raise BadPackage("malformed", "coded data have an unknown number of lanes")
        self._lanes, self._log = LaneDecoder(file, 1 << log[0]), log[0]
        self._size = 0  # of the dense arrays so far
        self._dense: _Dense | None = None

    def start(self) -> None:
        """Begin an array."""
        self._end()
        if not self._decoder.decide(_EVEN):
            self._others.start()
            return
        size, tokens = _take(self._decoder)
        self._size += size
        # Few lanes are slow: no package makes a device take a step for each of many symbols.
        if size < _LEAST or self._log < _lanes_log(self._size):
            raise BadPackage("malformed", "symbols are in lanes that should not be")
        self._others.start()
        shares = self._others.read(tokens.kinds * tokens.count).reshape(tokens.kinds, -1)
        self._others.end()
        out_of_range = shares.min() < 0 or shares.max() > CERTAIN
        if out_of_range or (shares.sum(axis=1) != CERTAIN).any():
            raise BadPackage("malformed", "shares do not add up")
        self._dense = _Dense(self._lanes, size, tokens, shares, 1 << self._log)

    def read(self, count: int) -> Integers:
        """The next `count` symbols of the array."""
        return self._dense.read(count) if self._dense else self._others.read(count)

    def finish(self) -> None:
        """Raise BadPackage where anything is left."""
        self._end()
        if self._log != _lanes_log(self._size):
            raise BadPackage("malformed", "coded data have an unknown number of lanes")
        self._decoder.finish()
        self._lanes.finish()

    def _end(self) -> None:
        if self._dense:
            self._dense.end()
        else:
            self._others.end()
        self._dense = None


class _Dense:
    """A dense array under way."""

    def __init__(
        self, lanes: LaneDecoder, size: int, tokens: Tokens, shares: Integers, most: int
    ) -> None:
        self._lanes, self._most = lanes, most
        self._unread, self._tokens = size, tokens
        self._slots = slots(shares, tokens.classes())
        self._block = np.empty(0, np.int64)

    def read(self, count: int) -> Integers:
        """The next `count` symbols."""
        pieces, left = [np.empty(0, np.int64)], count
        while left:
            if not self._block.size:
                self._block = self._next()
            pieces.append(self._block[:left])
            self._block = self._block[left:]
            left -= pieces[-1].size
        return np.concatenate(pieces)

    def end(self) -> None:
        """Raise BadPackage where symbols are left."""
        if self._block.size or self._unread:
            raise BadPackage("malformed", "symbols are left")

    def _next(self) -> Integers:
        size = min(BLOCK, self._unread)
        if not size:
            raise BadPackage("malformed", "coded data end too early")
        self._unread -= size
        runs, tokens = Runs.of(size, self._most), self._tokens
        before = np.zeros(runs.lanes, np.uint64)
        places = runs.firsts[None] + np.arange(runs.steps)[:, None]
        out = np.empty(size, np.int64)
        out[places] = self._lanes.read(self._slots, tokens.shift, runs.steps, before)
        if runs.longer:
            row = self._lanes.read(self._slots, tokens.shift, 1, before[: runs.longer])
            out[runs.firsts[: runs.longer] + runs.steps] = row
        return out + (tokens.low << tokens.shift)
