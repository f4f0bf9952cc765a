"""The update package: what travels.

A package is a safetensors file with one uint8 tensor `payload` and one metadata key `weft`, the
canonical JSON of `PackageHeader`. The same content always gives the same bytes. The payload is

    varint length, then the control section:
        byte     flags: 1 = has a base, 2 = brings a schema
        32       digest of the base weights (only with flag 1)
        32       digest of the resulting weights
        section  changes to the schema (only with flag 2), see `pack_schema`
        varint   number of tensors N, then N plan bytes, in name order
        then, for each tensor with plan DIRECT or FACTORS:
                 its steps (2 bytes each, as many as the method says), and, for FACTORS,
                 the method's own parameters (section) and the guard
    varint length, then the coded symbols
    varint length, then the coded bytes (of plans RAW and XOR), to the end of the file

Varints and sections are those of `shared.records`, plans those of `shared.plans`. Nothing is
allocated from a length before the length is held against what the file has.

Format 2 is format 1 with golden samples in its header (`shared.golden`): a package without them is
of format 1, so that devices which know no other can read it.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared import coding
from shared.errors import BadPackage
from shared.golden import MAX_BYTES, Golden
from shared.plans import (
    MAX_CONTROL_BYTES,
    MAX_RESULT_BYTES,
    TensorPlan,
    apply_schema,
    pack_plans,
    pack_schema,
    unpack_plans,
)
from shared.records import Cursor, section, varint
from shared.tensors import METADATA, Schema, TensorSpec, schema_of
from shared.weights import open_regular

FORMAT, GOLDEN_FORMAT = 1, 2
FORMATS = (FORMAT, GOLDEN_FORMAT)
MAX_HEADER_BYTES = 4096
DIGEST_BYTES = 32

_HAS_BASE, _HAS_SCHEMA = 1, 2


class PackageHeader(BaseModel):
    """The JSON that every safetensors reader can show. Ids carry their version: `ka/1`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int
    model: str
    method: str
    options: dict[str, int | float | str] = Field(default_factory=dict)
    coder: str
    tool: str
    golden: Golden | None = None

    @model_validator(mode="after")
    def _golden_is_of_its_format(self) -> PackageHeader:
        if (self.golden is not None) != (self.format == GOLDEN_FORMAT):
            raise ValueError(f"golden samples belong to format {GOLDEN_FORMAT}")
        if self.golden is not None and self.golden.package_bytes > MAX_BYTES:
            raise ValueError(f"golden samples take more than {MAX_BYTES} bytes")
        return self

    def with_golden(self, golden: Golden) -> PackageHeader:
        """The same with golden samples."""
        return self.model_copy(update={"format": GOLDEN_FORMAT, "golden": golden})

    def fields(self) -> dict[str, Any]:
        """What is written of it."""
        fields = self.model_dump(exclude={"golden"})
        return fields | ({"golden": self.golden.fields()} if self.golden else {})


class PackageWriter:
    """Assembles a package: plans and symbols tensor by tensor in name order, then the file."""

    def __init__(
        self,
        header: PackageHeader,
        base: Schema | None,
        target: Schema,
        base_digest: bytes | None,
        stream: BinaryIO,
    ) -> None:
        """`stream` is a scratch file (w+b) that takes the coded bytes until `write`."""
        self._header, self._base, self._target = header, base, schema_of(target.values())
        self._base_digest = base_digest
        self._plans: list[TensorPlan] = []
        self._symbols: list[Any] = []
        self._stream = stream
        self._bytes = coding.ByteSink(stream)
        self._has_bytes = False

    def add(self, plan: TensorPlan, symbols: Iterable[Any] = ()) -> None:
        """The next tensor, and its symbols if any."""
        self._plans.append(plan)
        self._symbols.extend(symbols)

    def add_bytes(self, data: bytes) -> None:
        """The next piece of elements of the tensor just added (plans RAW and XOR)."""
        self._has_bytes = True
        self._bytes.write(data)

    def write(self, file: BinaryIO, result_digest: bytes) -> None:
        """Write the package; the caller makes it durable."""
        self._bytes.close()
        control = self._control(result_digest)
        symbols = coding.coder(self._header.coder).encode(self._symbols) if self._symbols else b""
        stream_bytes = self._stream.seek(0, os.SEEK_END) if self._has_bytes else 0
        front = b"".join(
            (varint(len(control)), control, varint(len(symbols)), symbols, varint(stream_bytes))
        )
        file.write(_container(self._header, len(front) + stream_bytes))
        file.write(front)
        self._stream.seek(0)
        for _ in range(0, stream_bytes, 1 << 20):
            file.write(self._stream.read(1 << 20))

    def _control(self, result_digest: bytes) -> bytes:
        base, new_schema = self._base_digest, dict(self._base or {}) != dict(self._target)
        flags = (_HAS_BASE if base else 0) | (_HAS_SCHEMA if new_schema else 0)
        parts = [bytes([flags]), base or b"", result_digest]
        if new_schema:
            parts.append(section(pack_schema(self._base or {}, self._target)))
        parts.append(pack_plans(self._plans))
        return b"".join(parts)


class PackageReader:
    """An update package on disk, refused as a whole where anything in it does not add up.

    Raises BadPackage. Steps and parameters of a tensor are parsed by `plans`, once the caller has
    said how many steps its method uses.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = 1 << 40) -> None:
        self.path = Path(path)
        try:
            self._fd = open_regular(self.path)
        except FileNotFoundError as error:
            raise BadPackage("not_found", f"{self.path}: no such file") from error
        except OSError as error:
            raise BadPackage("malformed", f"{self.path}: {error.strerror}") from error
        try:
            self.size = os.fstat(self._fd).st_size
            if self.size > max_bytes:
                raise BadPackage("too_large", f"{self.size} bytes, the limit is {max_bytes}")
            self.header, start = _read_container(self._fd, self.size)
            self._locate(start)
            self._read_control()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> PackageReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def symbols(self) -> coding.SymbolSource:
        """The coded symbols, from the first."""
        return coding.coder(self.header.coder).source(self._window(self._symbols))

    def bytes(self) -> coding.ByteSource:
        """The coded bytes, from the first."""
        return coding.ByteSource(self._window(self._bytes))

    def _window(self, part: tuple[int, int]) -> BinaryIO:
        return cast("BinaryIO", _Window(self._fd, *part))

    @property
    def has_symbols(self) -> bool:
        """Whether any tensor is sent as symbols."""
        return self._symbols[1] > 0

    @property
    def has_bytes(self) -> bool:
        """Whether any tensor is sent as bytes."""
        return self._bytes[1] > 0

    @property
    def container_bytes(self) -> int:
        """Size of what every package has: all but symbols, bytes, steps, parameters and guards."""
        return self.size - self._symbols[1] - self._bytes[1] - len(self._records)

    def target_schema(self, base: Schema | None) -> dict[str, TensorSpec]:
        """The schema of the result, given the base's; raises BadPackage."""
        schema = apply_schema(self._schema_changes, dict(base or {}))
        if len(schema) != len(self._plan_bytes):
            raise BadPackage(
                "wrong_schema", f"{len(self._plan_bytes)} plans for {len(schema)} tensors"
            )
        result_bytes = sum(spec.nbytes for spec in schema.values())
        if result_bytes > MAX_RESULT_BYTES:
            raise BadPackage("too_large", f"the new weights would take {result_bytes} bytes")
        return schema

    def plans(self, direct_steps: int, factor_steps: int) -> list[TensorPlan]:
        """The plan of each tensor, in name order; raises BadPackage."""
        return unpack_plans(self._plan_bytes, self._records, direct_steps, factor_steps)

    def _locate(self, start: int) -> None:
        """Find the three parts; they must fill the file exactly."""
        control, control_bytes = self._part(start)
        if control_bytes > MAX_CONTROL_BYTES:
            raise BadPackage("too_large", f"a control section of {control_bytes} bytes")
        self._control = (control, control_bytes)
        self._symbols = self._part(control + control_bytes)
        self._bytes = self._part(sum(self._symbols))
        if sum(self._bytes) != self.size:
            raise BadPackage("malformed", f"{self.size - sum(self._bytes)} bytes too many")

    def _part(self, offset: int) -> tuple[int, int]:
        """Offset and length of the part whose varint length stands at `offset`."""
        head = Cursor(os.pread(self._fd, 9, offset))
        length = head.varint()
        begin = offset + head.position
        if length > self.size - begin:
            raise BadPackage("malformed", "the file ends before its parts do")
        return begin, length

    def _read_control(self) -> None:
        start, length = self._control
        cursor = Cursor(os.pread(self._fd, length, start))
        flags = cursor.take(1)[0]
        if flags & ~(_HAS_BASE | _HAS_SCHEMA):
            raise BadPackage("malformed", f"unknown flags {flags:#x}")
        has_base = bool(flags & _HAS_BASE)
        self.base_digest: bytes | None = cursor.take(DIGEST_BYTES) if has_base else None
        self.result_digest: bytes = cursor.take(DIGEST_BYTES)
        self._schema_changes = cursor.section() if flags & _HAS_SCHEMA else None
        self._plan_bytes = cursor.take(cursor.varint())
        self._records = cursor.rest()


class _Window(io.RawIOBase):
    """A part of a file as a file of its own, read by `pread`."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        self._fd, self._start, self._at, self._end = fd, start, start, start + length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(self._start, origin + offset)
        return self._at - self._start

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._end - self._at))
        data = os.pread(self._fd, size, self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _container(header: PackageHeader, payload_bytes: int) -> bytes:
    """The safetensors header; canonical: sorted keys, no spaces but the padding."""
    weft = json.dumps(header.fields(), sort_keys=True, separators=(",", ":"))
    payload = {"dtype": "U8", "shape": [payload_bytes], "data_offsets": [0, payload_bytes]}
    outer = {METADATA: {"weft": weft}, "payload": payload}
    text = json.dumps(outer, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _read_container(fd: int, size: int) -> tuple[PackageHeader, int]:
    """The header, and where the payload starts."""
    prefix = os.pread(fd, 8, 0)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise BadPackage("malformed", "this is not an update package")
    text = os.pread(fd, length, 8)
    try:
        weft = json.loads(text)[METADATA]["weft"]
        fields = json.loads(weft)
        if fields["format"] not in FORMATS:
            found = fields["format"]
            raise BadPackage("unknown_format", f"format {found!r}, known are {FORMATS}")
        header = PackageHeader.model_validate(fields)
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise BadPackage("malformed", "this is not an update package") from error
    coding.coder(header.coder)
    start = 8 + length
    if _container(header, size - start) != prefix + text:
        raise BadPackage("malformed", "the header is not in canonical form")
    return header, start
