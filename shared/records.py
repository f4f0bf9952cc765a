"""Numbers and byte strings, one after the other: the form of a package's binary parts.

Varints are LEB128 in their shortest form, at most 63 bits. A *section* is a varint length and that
many bytes.
"""

from __future__ import annotations

from shared.errors import BadPackage


class Cursor:
    """Reads a byte string from front to back; raises BadPackage instead of reading past its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.position + size
        if end > len(self._data):
            raise BadPackage("malformed", "a record is cut short")
        piece, self.position = self._data[self.position : end], end
        return piece

    def varint(self) -> int:
        """The next varint; its shortest form only, so that the same content has the same bytes."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                if byte == 0 and shift:
                    raise BadPackage("malformed", "a number is written longer than needed")
                return value
            shift += 7
            if shift > 56:
                raise BadPackage("malformed", "a number is too large")

    def section(self) -> bytes:
        """The next section."""
        return self.take(self.varint())

    def text(self) -> str:
        """The next section, as UTF-8."""
        try:
            return self.section().decode()
        except UnicodeDecodeError as error:
            raise BadPackage("malformed", "a name is not UTF-8") from error

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self.position)

    def finish(self) -> None:
        """Raise where anything is left."""
        if self.position != len(self._data):
            raise BadPackage("malformed", "a record is longer than its content")


def varint(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def section(data: bytes) -> bytes:
    """`data` behind its length."""
    return varint(len(data)) + data
