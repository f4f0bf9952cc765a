"""The undo file of mode `inplace`: what turns old weights into new ones, and back, in place.

It holds the bitwise difference of all that changes, made before anything is touched:

    header    magic, format, and of the weights file: where its tensors begin, its size, a checksum
              of what stands before the tensors
    frames    one for each piece of a tensor that changes: offset in the weights file, length, item
              size, checksums of the old and the new bytes; then old xor new, byte-shuffled, zstd
    end       a checksum of all of it

A difference is its own inverse, and the checksums tell of every piece whether it is old or new by
now; so `toggle` needs no record of how far it came. What they cannot mend is a piece that was
being written when the power failed: some of its bytes are old, some new. Hence the scratch file
beside the undo file. For each block of pieces, in this order:

    1. the bytes that are there now go to the scratch file, with their places and a checksum; sync;
    2. the other bytes go to the weights file; sync.

At every instant, the scratch file is whole on the disk, or no piece is torn: 2 begins when 1 is on
the disk, and the next block's 1 when this 2 is. `toggle` therefore begins by putting back what a
whole scratch file holds. It syncs the scratch file before that and the weights after it, before all
else, because what an agent that was killed has written may be in memory only: read back it looks
whole, and after a power loss it is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import zstandard

from edge_agent import files
from edge_agent.errors import AgentError
from shared.errors import NoSpace

#: What the weights file is turned to.
Side: TypeAlias = Literal["old", "new"]

#: What is written between two syncs, at most.
BLOCK_BYTES, BLOCK_FRAMES = 4 << 20, 1024
#: Space that is left to others while an undo file grows.
RESERVE_BYTES = 4 << 20

_MAGIC, _FORMAT = b"WeftUndo", 1
_HEADER = struct.Struct("<8sIQQ16s")
_FRAME = struct.Struct("<QIIB16s16s")
_SCRATCH = struct.Struct("<16s16sIQ")  # checksum of the rest, undo file, pieces, their bytes
_PLACE = struct.Struct("<QI")
_CHECK_BYTES = 16
_LEVEL = 1  # higher ones gain nothing on such differences
_READ_BYTES = 1 << 20


class WeightsFile(NamedTuple):
    """How the file to change is known again: its tensors may be old or new, the rest stays."""

    data_start: int
    size: int
    front: bytes  # checksum of all before the tensors

    @classmethod
    def of(cls, file: BinaryIO, data_start: int) -> WeightsFile:
        """What is known of an open file whose tensors begin at `data_start`."""
        front = _check(_read(file, 0, data_start))
        return cls(data_start, file.seek(0, 2), front)


class Frame(NamedTuple):
    """One piece of the weights file, and how it differs."""

    offset: int
    length: int
    itemsize: int
    old: bytes  # checksums
    new: bytes
    packed: bytes

    def turned(self, data: bytes) -> bytes:
        """Old bytes for new ones, new ones for old."""
        planes = zstandard.ZstdDecompressor().decompress(self.packed, self.length)
        return _xor(data, _unshuffle(planes, self.itemsize))


class Writer:
    """Writes an undo file piece by piece, in any order; the caller makes it durable."""

    def __init__(self, file: BinaryIO, weights: WeightsFile) -> None:
        self._file, self._check = file, hashlib.blake2b(digest_size=_CHECK_BYTES)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._room = 0
        self.changed = 0  # bytes that differ, or lie in a piece with such
        self._append(_HEADER.pack(_MAGIC, _FORMAT, *weights))

    def add(self, offset: int, itemsize: int, old: bytes, new: bytes) -> None:
        """Note a piece that stands at `offset`; raises NoSpace before the disk is full."""
        if old == new:
            return
        packed = self._compressor.compress(_shuffle(_xor(old, new), itemsize))
        fields = (offset, len(old), len(packed), itemsize, _check(old), _check(new))
        self._append(_FRAME.pack(*fields) + packed)
        self.changed += len(old)

    def close(self) -> None:
        """End the file."""
        self._file.write(self._check.digest())

    def _append(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            folder = Path(str(self._file.name)).parent
            free = files.free_bytes(folder) - RESERVE_BYTES
            if free < len(data):
                raise NoSpace("no_space", f"no room in {folder} for the undo file")
            self._room = min(free - len(data), BLOCK_BYTES)
        self._file.write(data)
        self._check.update(data)


class Reader:
    """An undo file, whole. Raises AgentError `slot_damaged`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self.path = file, path
        self._end = file.seek(0, 2) - _CHECK_BYTES
        self.check = self._whole()
        fields = _HEADER.unpack(_read(file, 0, _HEADER.size))
        if fields[:2] != (_MAGIC, _FORMAT):
            raise AgentError("slot_damaged", f"{path} is no undo file that is known here")
        self.weights = WeightsFile(*fields[2:])

    def _whole(self) -> bytes:
        """The checksum of the file, once it is known to be right."""
        check = hashlib.blake2b(digest_size=_CHECK_BYTES)
        self._file.seek(0)
        left = self._end
        while left > 0 and (piece := self._file.read(min(left, _READ_BYTES))):
            check.update(piece)
            left -= len(piece)
        if self._end < _HEADER.size or self._file.read() != check.digest():
            raise AgentError("slot_damaged", f"{self.path} is not whole")
        return check.digest()

    def blocks(self) -> Iterator[list[Frame]]:
        """The frames, as many at a time as go between two syncs."""
        block: list[Frame] = []
        taken = 0
        for frame in self._frames():
            if block and (taken + frame.length > BLOCK_BYTES or len(block) == BLOCK_FRAMES):
                yield block
                block, taken = [], 0
            block.append(frame)
            taken += frame.length
        if block:
            yield block

    def _frames(self) -> Iterator[Frame]:
        at = _HEADER.size
        while at < self._end:
            fields = _FRAME.unpack(_read(self._file, at, _FRAME.size))
            offset, length, size, itemsize, old, new = fields
            at += _FRAME.size
            yield Frame(offset, length, itemsize, old, new, _read(self._file, at, size))
            at += size


def scratch_of(undo: Path) -> Path:
    """The scratch file beside an undo file; both are removed together, the undo file first."""
    return undo.with_name(f"{undo.name}.scratch")


def make_scratch(undo: Path, changed: int) -> None:
    """Take the space that `toggle` needs for so many changed bytes, so that none can lack then."""
    size = _SCRATCH.size + BLOCK_FRAMES * _PLACE.size + min(changed, BLOCK_BYTES)
    files.write(scratch_of(undo), bytes(size))


def toggle(weights: Path, undo: Path, to: Side) -> None:
    """Make the weights file wholly old or wholly new, whatever of both it is; durably.

    After an interruption at any instruction, calling it again for either side goes on. Raises
    AgentError `slot_damaged` where the file is neither, NoSpace.
    """
    scratch = scratch_of(undo)
    if not scratch.exists():
        make_scratch(undo, BLOCK_BYTES)
    with contextlib.ExitStack() as stack:
        reader = Reader(stack.enter_context(undo.open("rb")), undo)
        file = stack.enter_context(files.patching(weights))
        _Toggle(file, stack.enter_context(files.patching(scratch)), reader, weights).run(to)


@dataclass(frozen=True)
class _Toggle:
    file: BinaryIO
    scratch: BinaryIO
    undo: Reader
    path: Path

    def run(self, to: Side) -> None:
        found = WeightsFile.of(self.file, self.undo.weights.data_start)
        if found != self.undo.weights:
            raise AgentError(
                "slot_damaged", f"{self.path} is not what {self.undo.path} was made of"
            )
        touched = self._put_back()
        for block in self.undo.blocks():
            touched |= self._turn(block, to)
        if touched:
            self._forget()

    def _put_back(self) -> bool:
        """Write what a whole scratch file holds to where it stood; False where there is none."""
        head = _read(self.scratch, 0, _SCRATCH.size)
        check, undo, count, size = _SCRATCH.unpack(head.ljust(_SCRATCH.size, b"\0"))
        if undo != self.undo.check or count > BLOCK_FRAMES or size > self.scratch.seek(0, 2):
            return False
        rest = _read(self.scratch, _CHECK_BYTES, head_size := _SCRATCH.size - _CHECK_BYTES)
        rest += _read(self.scratch, _CHECK_BYTES + head_size, count * _PLACE.size + size)
        if _check(rest) != check:
            return False
        files.sync(self.scratch)
        data = head_size + count * _PLACE.size
        for offset, length in _PLACE.iter_unpack(rest[head_size:data]):
            self._write(offset, rest[data : data + length])
            data += length
        files.sync(self.file)
        return True

    def _turn(self, block: list[Frame], to: Side) -> bool:
        """Turn those pieces of a block that are not yet as wanted; False where all were."""
        there: dict[int, bytes] = {}
        wanted: dict[int, bytes] = {}
        for frame in block:
            source, target = (frame.old, frame.new) if to == "new" else (frame.new, frame.old)
            data = _read(self.file, frame.offset, frame.length)
            found = _check(data)
            if found == target:
                continue
            turned = frame.turned(data)
            if found != source or _check(turned) != target:
                place = f"{frame.length} bytes at {frame.offset}"
                raise AgentError("slot_damaged", f"{self.path}: {place} are neither old nor new")
            there[frame.offset], wanted[frame.offset] = data, turned
        if not wanted:
            return False
        self._save(there)
        for offset, turned in wanted.items():
            self._write(offset, turned)
        files.sync(self.file)
        return True

    def _save(self, pieces: dict[int, bytes]) -> None:
        """Put pieces into the scratch file, durably."""
        data = b"".join(pieces.values())
        places = (_PLACE.pack(offset, len(piece)) for offset, piece in pieces.items())
        head = _SCRATCH.pack(bytes(_CHECK_BYTES), self.undo.check, len(pieces), len(data))
        rest = b"".join((head[_CHECK_BYTES:], *places, data))
        self.scratch.seek(0)
        self.scratch.write(_check(rest) + rest)
        files.sync(self.scratch)

    def _forget(self) -> None:
        """Let the scratch file hold nothing: all is done, and need not be done again.

        If that is lost, the last block is put back and turned once more, hence no sync.
        """
        self.scratch.seek(0)
        self.scratch.write(bytes(_SCRATCH.size))

    def _write(self, offset: int, data: bytes) -> None:
        self.file.seek(offset)
        self.file.write(data)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    """Those bytes, fewer where the file ends."""
    file.seek(offset)
    return file.read(size)


def _check(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECK_BYTES).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    bits = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return bits.to_bytes(len(left), "little")


def _shuffle(data: bytes, itemsize: int) -> bytes:
    """The first bytes of all items, then the second ones...: they are alike, and pack better."""
    return b"".join(data[plane::itemsize] for plane in range(itemsize))


def _unshuffle(planes: bytes, itemsize: int) -> bytes:
    data = bytearray(len(planes))
    count = len(planes) // itemsize
    for plane in range(itemsize):
        data[plane::itemsize] = planes[plane * count : (plane + 1) * count]
    return bytes(data)
