"""Mutants of update packages, from a seed: blind ones, and ones that get past the outer checks."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import zstandard

from shared.records import Cursor, section, varint

Mutation = Callable[["Parts", random.Random], bytes]
NUMBERS = (0, 1, 2, 127, 128, 255, 1 << 14, 1 << 20, 1 << 31, 1 << 36, 1 << 56, (1 << 63) - 1)


class Parts:
    """A sound package, taken apart."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        (length,) = struct.unpack_from("<Q", raw)
        outer = json.loads(raw[8 : 8 + length])
        self.header: dict[str, Any] = json.loads(outer["__metadata__"]["weft"])
        self.payload = raw[8 + length :]
        cursor = Cursor(self.payload)
        self.control, self.symbols, self.stream = (cursor.section() for _ in range(3))
        self.digests = range(1, 65 if self.control[0] & 1 else 33)
        inner = Cursor(self.control[self.digests.stop :])
        self.schema = inner.section() if self.control[0] & 2 else None
        self.plans = inner.section()
        self.records = inner.rest()

    def pack(self, **changes: Any) -> bytes:
        """The package again, canonical, with some parts replaced."""
        control = changes.get("control") or self.pack_control(**changes)
        parts = (
            control,
            changes.get("symbols", self.symbols),
            changes.get("stream", self.stream),
        )
        payload = changes.get("payload", b"".join(section(part) for part in parts))
        return container(changes.get("header", self.header), payload)

    def pack_control(self, **changes: Any) -> bytes:
        """The control section with some of its parts replaced."""
        schema = changes.get("schema", self.schema)
        flags = (self.control[0] & ~2) | (2 if schema is not None else 0)
        front = bytes([flags]) + self.control[1 : self.digests.stop]
        middle = b"" if schema is None else section(schema)
        plans, records = changes.get("plans", self.plans), changes.get("records", self.records)
        return front + middle + section(plans) + records


def container(header: Any, payload: bytes) -> bytes:
    """What a careful attacker writes: canonical around anything."""
    weft = json.dumps(header, sort_keys=True, separators=(",", ":"))
    place = {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}
    text = json.dumps(
        {"__metadata__": {"weft": weft}, "payload": place}, separators=(",", ":")
    ).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + payload


def spoil(data: bytes, rng: random.Random) -> bytes:
    """A few blind changes: bits, bytes, cuts, insertions, swaps."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(out)
        if not size:
            return bytes([rng.randrange(256)])
        at, other, run = rng.randrange(size), rng.randrange(size), rng.randrange(1, 9)
        match rng.randrange(7):
            case 0 | 1:
                out[at] ^= 1 << rng.randrange(8)
            case 2:
                out[at] = rng.choice((0, 1, 127, 128, 255))
            case 3:
                del out[at : at + run]
            case 4:
                out[at:at] = rng.randbytes(run)
            case 5:
                out[at], out[other] = out[other], out[at]
            case _:
                out[at:at] = out[other : other + run]
    return bytes(out)


def blind(parts: Parts, rng: random.Random) -> bytes:
    return spoil(parts.raw, rng)


def cut(parts: Parts, rng: random.Random) -> bytes:
    return parts.raw[: rng.randrange(len(parts.raw))]


def payload(parts: Parts, rng: random.Random) -> bytes:
    return parts.pack(payload=spoil(parts.payload, rng))


def lengths(parts: Parts, rng: random.Random) -> bytes:
    """One of the three lengths says something else."""
    pieces = [section(p) for p in (parts.control, parts.symbols, parts.stream)]
    wrong = rng.randrange(3)
    body = (parts.control, parts.symbols, parts.stream)[wrong]
    near = max(0, len(body) + rng.choice((-9, -1, 1, 9)))
    pieces[wrong] = varint(rng.choice((*NUMBERS, near))) + body
    return parts.pack(payload=b"".join(pieces))


def header(parts: Parts, rng: random.Random) -> bytes:
    """Another value somewhere in the JSON, packed as it should be."""
    changed: dict[str, Any] = json.loads(json.dumps(parts.header))
    values = [None, True, "", "x", 0, -1, 1.5, [], {}, 65535, 1 << 40, 1e300, *NUMBERS]
    methods = ["ka/1", "ml/1", "ml_delta/1", "lra/1", "lru/1", "lora/1", "rm/1"]
    methods += ["direct/1", "xor/1"]
    match rng.randrange(6):
        case 0:
            changed["method"] = rng.choice([*methods, "full/1", "ka/2", "ka", "magic/1"])
        case 1 | 2:
            name = rng.choice([*changed["options"], "rank", "bits", "seed", "proportion"])
            small = [1, 2, 3, 4, 7, 8, 9, 16]
            changed["options"][name] = rng.choice([*values, *small, *small])
        case 3:
            changed["method"] = rng.choice(methods)
            changed["options"] = {"rank": rng.choice((1, 2, 5, 65535)), "bits": rng.choice((2, 8))}
        case 4:
            changed[rng.choice([*changed, "new"])] = rng.choice(values)
        case _:
            changed.pop(rng.choice(list(changed)))
    return parts.pack(header=changed)


def control(parts: Parts, rng: random.Random) -> bytes:
    return parts.pack(control=spoil(parts.control, rng))


def records(parts: Parts, rng: random.Random) -> bytes:
    """Steps, parameters and guards."""
    return parts.pack(records=spoil(parts.records, rng))


def plans(parts: Parts, rng: random.Random) -> bytes:
    """Tensors made another way; now and then with the records that this asks for."""
    changed = bytearray(parts.plans)
    at, other = rng.randrange(len(changed)), rng.randrange(len(changed))
    if rng.random() < 0.5:
        changed[at], changed[other] = changed[other], changed[at]
        return parts.pack(plans=bytes(changed))
    changed[at] = rng.choice((0, 1, 2, 3, 4, 5, 6, 255))
    step = bytes([rng.randrange(1, 256), rng.randrange(256)])
    extra = rng.choice((b"", step, step * 3 + b"\0\0", step * 2 + b"\3\1\0\0\0"))
    front = rng.random() < 0.5
    return parts.pack(
        plans=bytes(changed), records=extra + parts.records if front else parts.records + extra
    )


def schema(parts: Parts, rng: random.Random) -> bytes:
    """Tensors that come, go, or are of another kind, with a plan for the new one."""
    if parts.schema is not None and rng.random() < 0.4:
        return parts.pack(schema=spoil(parts.schema, rng))
    names = (b"w", b"b", b"mask", b"counter", b"new", b"zz", b"__metadata__", b"bn.running_var")
    dtype = rng.choice((b"F32", b"F64", b"F16", b"BF16", b"I64", b"BOOL", b"F7"))
    shape = [rng.choice((0, 1, 2, 6, 10, 12, *NUMBERS)) for _ in range(rng.randrange(4))]
    dropped = rng.choice((b"\0", b"\0", b"\1\1w", b"\1\4mask"))
    spec = section(rng.choice(names)) + section(dtype)
    spec += varint(len(shape)) + b"".join(varint(d) for d in shape)
    changed = dropped + b"\1" + spec
    plan, at = bytes([rng.choice((0, 1, 3, 4, 5))]), rng.randrange(len(parts.plans) + 1)
    more = rng.choice((parts.plans, parts.plans[:at] + plan + parts.plans[at:]))
    records = rng.choice((parts.records, parts.records + b"\1\0", b"\1\0" + parts.records))
    return parts.pack(schema=changed, plans=more, records=records)


def coded(parts: Parts, rng: random.Random) -> bytes:
    return parts.pack(symbols=spoil(parts.symbols, rng), stream=spoil(parts.stream, rng))


def recoded(parts: Parts, rng: random.Random) -> bytes:
    """Other symbols or bytes, soundly compressed: more, fewer, larger."""
    if parts.symbols and parts.header["coder"] != "zstd/1" and rng.random() < 0.5:
        # Nearly any bytes are symbols to these coders.
        return parts.pack(symbols=rng.randbytes(rng.choice((1, 2, 30, 300))) + b"\1")
    if parts.symbols and parts.header["coder"] != "zstd/1":
        coded = zstandard.ZstdCompressor(level=1).compress(rng.randbytes(rng.randrange(300)))
        return parts.pack(header={**parts.header, "coder": "zstd/1"}, symbols=b"\1" + coded)
    if parts.symbols:
        width = parts.symbols[:1] if rng.random() < 0.8 else rng.choice((b"\1", b"\2", b"\4"))
        return parts.pack(symbols=width + _recompressed(parts.symbols[1:], rng))
    return parts.pack(stream=_recompressed(parts.stream, rng))


def _recompressed(stream: bytes, rng: random.Random) -> bytes:
    data = zstandard.ZstdDecompressor().decompressobj().decompress(stream)
    bomb = bytes(1 << 25 if rng.random() < 0.05 else 0)
    return zstandard.ZstdCompressor(level=1).compress(spoil(data, rng) + bomb)


def promise(parts: Parts, rng: random.Random) -> bytes:
    """Another digest, of base or result."""
    changed = bytearray(parts.control)
    changed[rng.choice(parts.digests)] ^= 1 << rng.randrange(8)
    return parts.pack(control=bytes(changed))


MUTATIONS: tuple[Mutation, ...] = (
    blind,
    cut,
    payload,
    lengths,
    header,
    control,
    records,
    plans,
    schema,
    coded,
    recoded,
    promise,
)
