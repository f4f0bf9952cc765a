"""Integer arrays, most of them zeros, as decisions for the range coder.

An array is coded as how many zeros stand before each other symbol, and what that symbol is:

* the zeros in blocks of 2^j: with z the share of zeros so far, a block is all zeros with
  probability z^(2^j), and j is such that this is near one half. In a block that is not, the place
  of the symbol is found by halving; the lowest bits of the place, which are as good as even, go
  as they are;
* the sign as it is;
* the magnitude less one as a quotient by 2^shift, in unary, each of whose digits has a probability
  that adapts, and the rest as it is. The shift is sent with the first symbol.

All that is learnt is a share of zeros and a few digits, from nothing, for each array: two tensors
are hardly ever alike, and tables would have to be sent. An array of 10,000 costs about two bytes
above its zero-order entropy. Work follows the symbols that are not zero, not the size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.errors import BadPackage
from shared.range_coder import CERTAIN, PROBABILITY_BITS, Decoder, Encoder

#: Unary digits of a quotient; larger ones go on as Exp-Golomb numbers.
_UNARY = 14
_LENGTH_BITS = 5
#: |q| < 2^30.
_MAX_SHIFT = 30
#: A shift larger by one is as likely as three quarters are to one.
_SHIFT_GOES_ON = CERTAIN // 4
#: The mean of the quotients, which the shift is chosen for.
_QUOTIENT = 3
#: No digit is surer than this: the few of an array tell no more.
_LEAST_DIGIT = CERTAIN >> 10
_MAX_J = 32
#: Bits of a place that are so near to even go as they are.
_EVEN = CERTAIN >> 7
_ONE = 1 << 32


class Zeros:
    """How the next zeros are coded, by how many symbols, and how many zeros, were seen.

    `share`: of zeros so far. `block`: probability that a block of 2^j is all zeros. `halves`: in
    one that is not, size and probability of the first half being zeros, from the largest down; then
    `plain` even bits.
    """

    __slots__ = ("block", "halves", "j", "plain", "share", "until")

    def __init__(self, seen: int = 0, zeros: int = 0) -> None:
        shares = [((2 * zeros + 1) << 32) // (2 * seen + 2)]  # z, z^2, z^4, ... as 0.32
        while shares[-1] > _ONE * 5 // 8 and len(shares) <= _MAX_J:
            shares.append(shares[-1] * shares[-1] >> 32)
        self.share = shares[0] >> 32 - PROBABILITY_BITS
        self.j = len(shares) - 1
        self.block = min(max(shares[-1] >> 32 - PROBABILITY_BITS, 1), CERTAIN - 1)
        # For a half with a = z^half: a (1 - a) / (1 - a^2).
        even = [(share << PROBABILITY_BITS) // (_ONE + share) for share in shares[:-1]]
        self.plain = sum(CERTAIN // 2 - p < _EVEN for p in even)
        self.halves = tuple((1 << i, even[i]) for i in range(self.j - 1, self.plain - 1, -1))
        self.until = seen + (seen >> 4)  # good enough for so long


class Magnitudes:
    """What the magnitudes of an array are like: how often each digit was one, and zero.

    `earlier` has such counts of earlier arrays by their shift, and takes this one's: they begin as
    the last ones of the same shift ended, at most at `weight`.
    """

    __slots__ = ("_counts", "_earlier", "_weight", "shift")

    def __init__(self, earlier: dict[int, list[list[int]]] | None = None, weight: int = 0) -> None:
        self.shift: int | None = None
        self._counts = [[1, 3]]
        self._earlier, self._weight = earlier, weight

    def encode(self, encoder: Encoder, magnitude: int, shift: int) -> None:
        """Code a magnitude of at least 1; the first one tells the shift of all."""
        if self.shift is None:
            self._begin(shift)
            for goes_on in [True] * shift + [False]:
                encoder.decide(goes_on, _SHIFT_GOES_ON)
        quotient = magnitude - 1 >> shift
        for digit in range(min(quotient + 1, _UNARY)):
            encoder.decide(quotient > digit, self._probability(digit))
            self._counts[digit][quotient <= digit] += 2
        if quotient >= _UNARY:
            length = (quotient - _UNARY + 1).bit_length() - 1
            encoder.plain(length, _LENGTH_BITS)
            encoder.plain(quotient - _UNARY + 1 - (1 << length), length)
        encoder.plain(magnitude - 1 & (1 << shift) - 1, shift)

    def decode(self, decoder: Decoder) -> int:
        """The next one; raises BadPackage."""
        if self.shift is None:
            self._begin(_decode_shift(decoder))
        quotient = 0
        while decoder.decide(self._probability(quotient)):
            self._counts[quotient][0] += 2
            quotient += 1
            if quotient == _UNARY:
                length = decoder.plain(_LENGTH_BITS)
                quotient += (1 << length) - 1 + decoder.plain(length)
                break
        else:
            self._counts[quotient][1] += 2
        if self.shift:
            return 1 + (quotient << self.shift | decoder.plain(self.shift))
        return 1 + quotient

    def _begin(self, shift: int) -> None:
        self.shift = shift
        if self._earlier is not None:
            if shift in self._earlier:
                self._counts = [_at_most(self._weight, *digit) for digit in self._earlier[shift]]
            self._earlier[shift] = self._counts

    def _probability(self, digit: int) -> int:
        """That a digit is one; a digit that is new takes after the one before it."""
        if digit == len(self._counts):
            ones, zeros = self._counts[-1]
            total = ones + zeros
            self._counts.append([max(1, 4 * ones // total), max(1, 4 * zeros // total)])
        ones, zeros = self._counts[digit]
        probability = (ones << PROBABILITY_BITS) // (ones + zeros)
        if _LEAST_DIGIT <= probability <= CERTAIN - _LEAST_DIGIT:
            return probability
        return _LEAST_DIGIT if probability < _LEAST_DIGIT else CERTAIN - _LEAST_DIGIT


def _at_most(total: int, ones: int, zeros: int) -> list[int]:
    """Counts in the same proportion, with no more than that total; none is nothing."""
    there = ones + zeros
    if there <= total:
        return [ones, zeros]
    return [max(1, ones * total // there), max(1, zeros * total // there)]


def _decode_shift(decoder: Decoder) -> int:
    for shift in range(_MAX_SHIFT + 1):
        if not decoder.decide(_SHIFT_GOES_ON):
            return shift
    raise BadPackage("malformed", "a symbol is too large")


def encode(encoder: Encoder, symbols: NDArray[np.int64]) -> None:
    """Code one array of symbols below 2^30."""
    places = np.flatnonzero(symbols)
    others = symbols[places]
    shift = shift_for(others)
    seen = zeros = 0
    coding, magnitudes = Zeros(), Magnitudes()
    for place, symbol in zip([*places.tolist(), symbols.size], [*others.tolist(), 0], strict=True):
        while place - seen >= (1 << coding.j if symbol else 1):  # the last may go beyond the end
            encoder.decide(True, coding.block)
            seen += 1 << coding.j
            zeros += 1 << coding.j
            if seen > coding.until:
                coding = Zeros(seen, zeros)
        if not symbol:
            return
        encoder.decide(False, coding.block)
        gap = place - seen
        zeros += gap
        seen = place + 1
        for half, probability in coding.halves:
            encoder.decide(gap >= half, probability)
            gap -= half if gap >= half else 0
        encoder.plain(gap << 1 | (symbol < 0), coding.plain + 1)
        magnitudes.encode(encoder, abs(symbol), shift)
        if seen > coding.until:
            coding = Zeros(seen, zeros)


def shift_for(others: NDArray[np.int64]) -> int:
    """The shift that leaves quotients of a few units."""
    total, shift = int(np.abs(others).sum()), 0
    while total > _QUOTIENT * others.size << shift:
        shift += 1
    return shift


class ArrayDecoder:
    """The arrays back, one after the other, each in pieces of any size. Raises BadPackage."""

    def __init__(self, data: bytes) -> None:
        self._decoder = Decoder(data)
        self.start()

    def start(self) -> None:
        """Begin an array. A block of zeros that goes beyond the last one ends with it."""
        self._left = self._symbol = 0  # zeros, and the symbol after them, not read yet
        self._seen = self._zeros = 0
        self._coding, self._magnitudes = Zeros(), Magnitudes()

    def read(self, count: int) -> NDArray[np.int64]:
        """The next `count` symbols of the array."""
        places: list[int] = []
        others: list[int] = []
        at = 0
        while True:
            step = min(self._left, count - at)
            self._left -= step
            at += step
            if at == count:
                break
            if self._symbol:
                places.append(at)
                others.append(self._symbol)
                self._symbol = 0
                at += 1
            elif not self._left:
                self._advance()
        out = np.zeros(count, np.int64)
        out[places] = others
        return out

    def finish(self) -> None:
        """Raise BadPackage where anything is left."""
        if self._symbol:
            raise BadPackage("malformed", "symbols are left")
        self._decoder.finish()

    def _advance(self) -> None:
        """Decode a block of zeros, or zeros and the symbol after them."""
        decoder = self._decoder
        if self._seen > self._coding.until:
            self._coding = Zeros(self._seen, self._zeros)
        coding = self._coding
        if decoder.decide(coding.block):
            gap = 1 << coding.j
            self._seen += gap
        else:
            gap = decoder.chosen(coding.halves)
            tail = decoder.plain(coding.plain + 1)  # the last bit is the sign
            gap += tail >> 1
            magnitude = self._magnitudes.decode(decoder)
            self._symbol = -magnitude if tail & 1 else magnitude
            self._seen += gap + 1
        self._left = gap
        self._zeros += gap
