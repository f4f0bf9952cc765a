"""Gap coding that looks at the symbol before: what `range/2` does, after `shared.gap_coding`.

Trained symbols are not quite independent: what follows a symbol other than zero is less often zero,
and tends to its sign; gains and biases hardly change sign at all. Beside blocks of zeros and
magnitudes there are

* behind a symbol, where such are not too rare, a decision of its own on whether a zero follows;
* a sign whose probability adapts: to what stood right before, and until that was seen often enough
  to the signs so far.

The digits of magnitudes begin as an earlier array's ended, at a small weight: in an array of some
dozens of symbols, learning them anew is a tenth of the bytes.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from shared.errors import BadPackage
from shared.gap_coding import Magnitudes, Zeros, shift_for
from shared.range_coder import CERTAIN, PROBABILITY_BITS, Decoder, Encoder

#: How many symbols the whole array's share weighs, beside those of the same neighbour.
_WEIGHT = 8
#: What the digits of an earlier array weigh at most, at 2 a symbol.
_DIGITS = 16
#: With no more symbols than that an encoder tries what shift is best.
_TRIED = 512
#: With longer blocks of zeros than 2^this, no symbol has a neighbour often enough.
_LONGEST = 5
#: No sign is surer than this.
_LEAST_SIGN = CERTAIN >> 10
#: What stands before a symbol.
_ZERO, _NEGATIVE, _POSITIVE = 0, 1, 2


class _Neighbours:
    """How often a zero followed a symbol, and a negative one what it followed."""

    __slots__ = ("_all", "_negative", "_others", "_positive", "_zeros")

    def __init__(self) -> None:
        self._zeros = self._others = 0
        self._all = [1, 2]  # negative ones, and all; of each one before any was seen
        self._negative, self._positive = [0, 0, 0], [0, 0, 0]

    def zero_follows(self, share: int) -> int:
        """The probability, given the share of zeros elsewhere."""
        weighed = (self._zeros << PROBABILITY_BITS) + _WEIGHT * share
        return min(max(weighed // (self._zeros + self._others + _WEIGHT), 1), CERTAIN - 1)

    def followed(self, zero: bool) -> None:
        if zero:
            self._zeros += 1
        else:
            self._others += 1

    def negative(self, before: int) -> int:
        """The probability that a symbol is negative, behind _ZERO, _NEGATIVE or _POSITIVE."""
        negative, (of_all, total) = self._negative[before], self._all
        weighed = (negative << PROBABILITY_BITS) + _WEIGHT * (of_all << PROBABILITY_BITS) // total
        probability = weighed // (negative + self._positive[before] + _WEIGHT)
        if _LEAST_SIGN <= probability <= CERTAIN - _LEAST_SIGN:
            return probability
        return _LEAST_SIGN if probability < _LEAST_SIGN else CERTAIN - _LEAST_SIGN

    def signed(self, before: int, negative: bool) -> None:
        self._all[0] += negative
        self._all[1] += 1
        (self._negative if negative else self._positive)[before] += 1


class _Array:
    """An array under way, on either side."""

    __slots__ = ("before", "coding", "digits", "neighbours", "seen", "zeros")

    def __init__(self, earlier: dict[int, list[list[int]]]) -> None:
        self.seen = self.zeros = 0  # of what blocks stand for
        self.before = _ZERO
        self.coding, self.neighbours = Zeros(), _Neighbours()
        self.digits = Magnitudes(earlier, _DIGITS)

    def refresh(self) -> Zeros:
        """How zeros are coded next."""
        if self.seen > self.coding.until:
            self.coding = Zeros(self.seen, self.zeros)
        return self.coding


class ArrayEncoder:
    """Arrays of symbols below 2^30, one after the other, into decisions."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._earlier: dict[int, list[list[int]]] = {}

    def encode(self, symbols: NDArray[np.int64]) -> None:
        """Code one array."""
        array = _Array(self._earlier)
        places = np.flatnonzero(symbols)
        others = symbols[places]
        shift, at = self._shift(others), 0
        for place, symbol in zip(places.tolist(), others.tolist(), strict=True):
            self._gap(array, place - at)
            negative = symbol < 0
            self._encoder.decide(negative, array.neighbours.negative(array.before))
            array.neighbours.signed(array.before, negative)
            array.before = _NEGATIVE if negative else _POSITIVE
            array.digits.encode(self._encoder, abs(symbol), shift)
            at = place + 1
        if at < symbols.size:
            self._rest(array, symbols.size - at)

    def _shift(self, others: NDArray[np.int64]) -> int:
        """The shift of an array: that which costs least, where there is not much to try."""
        usual = shift_for(others)
        if others.size > _TRIED:
            return usual
        tried = [shift for shift in (usual, usual - 1, usual + 1) if shift >= 0]
        return min(tried, key=lambda shift: self._cost(others, shift))

    def _cost(self, others: NDArray[np.int64], shift: int) -> int:
        encoder, digits = Encoder(), Magnitudes(copy.deepcopy(self._earlier), _DIGITS)
        for magnitude in np.abs(others).tolist():
            digits.encode(encoder, magnitude, shift)
        return encoder.spent()

    def _gap(self, array: _Array, zeros: int) -> None:
        """The zeros before a symbol."""
        encoder, coding = self._encoder, array.refresh()
        if array.before and coding.j <= _LONGEST:
            self._follows(array, zeros > 0)
            if not zeros:
                return
            zeros -= 1
        elif zeros:
            array.before = _ZERO
        zeros = self._blocks(array, zeros, whole=True)
        coding = array.refresh()
        encoder.decide(False, coding.block)
        array.zeros += zeros
        array.seen += zeros + 1
        for half, probability in coding.halves:
            encoder.decide(zeros >= half, probability)
            zeros -= half if zeros >= half else 0
        if coding.plain:
            encoder.plain(zeros, coding.plain)

    def _rest(self, array: _Array, zeros: int) -> None:
        """The zeros at the end, or more of them: a decoder takes as many as it wants."""
        if array.before and array.refresh().j <= _LONGEST:
            self._follows(array, True)
            zeros -= 1
        self._blocks(array, zeros, whole=False)

    def _follows(self, array: _Array, zero: bool) -> None:
        self._encoder.decide(zero, array.neighbours.zero_follows(array.coding.share))
        array.neighbours.followed(zero)
        array.before = _ZERO if zero else array.before

    def _blocks(self, array: _Array, zeros: int, whole: bool) -> int:
        """Blocks of zeros: `whole` ones while there are as many, or any at all; what is left."""
        coding = array.refresh()
        while zeros >= (1 << coding.j if whole else 1):
            self._encoder.decide(True, coding.block)
            array.before = _ZERO
            array.seen += 1 << coding.j
            array.zeros += 1 << coding.j
            zeros -= 1 << coding.j
            coding = array.refresh()
        return zeros


class ArrayDecoder:
    """The arrays back, one after the other, each in pieces of any size. Raises BadPackage."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._earlier: dict[int, list[list[int]]] = {}
        self._array = _Array(self._earlier)
        self._left = self._symbol = 0  # zeros, and the symbol after them, not read yet

    def start(self) -> None:
        """Begin an array. A block of zeros that goes beyond the last one ends with it."""
        self.end()
        self._array = _Array(self._earlier)
        self._left = 0

    def read(self, count: int) -> NDArray[np.int64]:
        """The next `count` symbols of the array."""
        places: list[int] = []
        others: list[int] = []
        at = 0
        while at + self._left < count:
            at += self._left
            self._left = 0
            if self._symbol:
                places.append(at)
                others.append(self._symbol)
                self._symbol = 0
                at += 1
            else:
                self._advance(count - at)
        self._left -= count - at
        out = np.zeros(count, np.int64)
        out[places] = others
        return out

    def end(self) -> None:
        """Raise BadPackage where a symbol of the array is left."""
        if self._symbol:
            raise BadPackage("malformed", "symbols are left")

    def finish(self) -> None:
        """Raise BadPackage where anything is left."""
        self.end()
        self._decoder.finish()

    def _advance(self, room: int) -> None:
        """Decode so many zeros, or zeros and the symbol after them."""
        array, decoder = self._array, self._decoder
        coding = array.refresh()
        if array.before and coding.j <= _LONGEST:
            zero = decoder.decide(array.neighbours.zero_follows(coding.share))
            array.neighbours.followed(zero)
            if zero:
                array.before, self._left = _ZERO, 1
                return
        else:
            zeros = 0
            while decoder.decide(coding.block):
                zeros += 1 << coding.j
                array.before = _ZERO
                array.seen += 1 << coding.j
                array.zeros += 1 << coding.j
                if zeros >= room:
                    self._left = zeros
                    return
                coding = array.refresh()
            gap = decoder.chosen(coding.halves)
            if coding.plain:
                gap += decoder.plain(coding.plain)
            if gap:
                array.before = _ZERO
            array.zeros += gap
            array.seen += gap + 1
            self._left = zeros + gap
        neighbours, before = array.neighbours, array.before
        negative = decoder.decide(neighbours.negative(before))
        neighbours.signed(before, negative)
        array.before = _NEGATIVE if negative else _POSITIVE
        magnitude = array.digits.decode(decoder)
        self._symbol = -magnitude if negative else magnitude
