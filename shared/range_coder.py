"""A binary range coder: decisions with given probabilities in, nearly as few bits as they hold out.

Carry-propagating, with a range of 48 bits and probabilities of 16 (Martin, "Range encoding: an
algorithm for removing redundancy from a digitised message", 1979). Integers only: the same bytes
on every machine. There is one way to code a sequence of decisions, and a decoder refuses all else.
"""

from __future__ import annotations

from shared.errors import BadPackage

PROBABILITY_BITS = 16
CERTAIN = 1 << PROBABILITY_BITS

_BITS = 48
_FULL = (1 << _BITS) - 1
#: Below this a byte is moved out, so that a probability never meets a range too small for it.
_LEAST_RANGE = 1 << (_BITS - 8)
_TOP_BYTE = 0xFF << (_BITS - 8)


class Encoder:
    """Decisions in, bytes out."""

    def __init__(self) -> None:
        self._low, self._range = 0, _FULL
        self._out = bytearray()
        self._held: int | None = None  # the last byte, which a carry may still raise
        self._pending = 0  # bytes 0xff after it, through which a carry would run
        self._moved = 0  # bytes moved out, with these

    def decide(self, decision: bool, probability: int) -> None:
        """Code a decision, of which `probability` / CERTAIN says how likely True is.

        The probability lies strictly between 0 and CERTAIN.
        """
        bound = (self._range >> PROBABILITY_BITS) * probability
        if decision:
            self._range = bound
        else:
            self._low += bound
            self._range -= bound
        self._normalise()

    def plain(self, value: int, bits: int) -> None:
        """Code an integer below 2^bits as it is; at most 32 bits."""
        self._range >>= bits
        self._low += value * self._range
        self._normalise()

    def spent(self) -> int:
        """How much was coded so far, in 1/16 bit; a little rough."""
        places = self._range.bit_length()
        return 128 * self._moved + 16 * (_BITS - places) + 15 - (self._range >> places - 5 & 15)

    def finish(self) -> bytes:
        """The fewest bytes that stand for what was coded; those that are missing read as zeros."""
        for place in range(_BITS, -1, -8):
            value = -(-self._low >> place) << place
            if value < self._low + self._range:
                self._low = value
                break
        for _ in range(_BITS // 8 + 1):
            self._shift()
        return bytes(self._out).rstrip(b"\0")

    def _normalise(self) -> None:
        while self._range < _LEAST_RANGE:
            self._range <<= 8
            self._shift()

    def _shift(self) -> None:
        if _TOP_BYTE <= self._low <= _FULL:
            self._pending += 1
        else:
            carry = self._low >> _BITS
            if self._held is not None:
                self._out.append((self._held + carry) & 0xFF)
            self._out += bytes([(0xFF + carry) & 0xFF]) * self._pending
            self._pending = 0
            self._held = self._low >> (_BITS - 8) & 0xFF
        self._low = self._low << 8 & _FULL
        self._moved += 1


class Decoder:
    """The decisions back. Missing bytes read as zeros; `finish` tells whether that was meant."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, _BITS // 8
        self._code = int.from_bytes(data[: self._at].ljust(self._at, b"\0"), "big")
        self._range = _FULL

    def decide(self, probability: int) -> bool:
        """See Encoder."""
        bound = (self._range >> PROBABILITY_BITS) * probability
        decision = self._code < bound
        if decision:
            self._range = bound
        else:
            self._code -= bound
            self._range -= bound
        if self._range < _LEAST_RANGE:
            self._normalise()
        return decision

    def chosen(self, choices: tuple[tuple[int, int], ...]) -> int:
        """Decide on each (value, probability) in turn: the sum of the values that were chosen.

        As `decide` does, but in one loop: this is where a decoder spends its time.
        """
        total = 0
        code, width = self._code, self._range
        for value, probability in choices:
            bound = (width >> PROBABILITY_BITS) * probability
            if code < bound:
                width = bound
                total += value
            else:
                code -= bound
                width -= bound
            if width < _LEAST_RANGE:
                self._code, self._range = code, width
                self._normalise()
                code, width = self._code, self._range
        self._code, self._range = code, width
        return total

    def plain(self, bits: int) -> int:
        """See Encoder; raises BadPackage where no encoder can have been at work."""
        self._range >>= bits
        value, self._code = divmod(self._code, self._range)
        if value >> bits:
            raise BadPackage("malformed", "coded data are damaged")
        if self._range < _LEAST_RANGE:
            self._normalise()
        return value

    def finish(self) -> None:
        """Raise BadPackage unless the data are the very bytes that `Encoder.finish` gives."""
        last = 8 * (self._at - len(self._data))  # the place of the last byte in the window
        if last < 0 or self._data[-1:] == b"\0":
            raise BadPackage("malformed", "coded data go on after their end")
        if last >= _BITS:
            return  # what is in the window is zeros that were left out
        unit, digit = 1 << last, self._data[-1] << last
        # The least multiple of the next larger unit that is not below what was coded.
        shorter = -digit if self._code >= digit else (unit << 8) - digit
        if self._code >= unit or self._code + shorter < self._range:
            raise BadPackage("malformed", "coded data end otherwise than they should")

    def _normalise(self) -> None:
        while self._range < _LEAST_RANGE:
            self._range <<= 8
            following = self._data[self._at] if self._at < len(self._data) else 0
            self._code = self._code << 8 | following
            self._at += 1
