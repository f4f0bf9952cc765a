"""DeepCABAC, as NNCodec brings it, in the peers' environment: integers in, bytes out.

stdin: `{"arrays": FILE, "quick": whether to try fewer options}`, a safetensors file of integer
matrices. stdout: for each the bytes of a stream of its own and the options; and the bytes of all in
one stream.

No quantiser, no dependent quantisation, no search by rate and distortion: the integers go in as
they are, and are decoded again (but those of scans in blocks). Each option that may help is tried
for each array, and the best is taken. Counted beside the stream is only what NNCodec's syntax has
for limits (a codebook of consecutive values) and for where the rows of blocks begin; names, shapes
and the other options are free.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from nncodec.extensions import deepCABAC  # type: ignore[import-not-found]
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.int32]
_NO_HISTORY = (deepCABAC.HdspMode.AlwaysOff, np.zeros(2, np.int8))
#: Flags of a magnitude with a context each; 10 is NNCodec's own choice.
_UNARY, _QUICK_UNARY = (1, 2, 3, 4, 6, 8, 10, 14), (1, 3, 10)
_SCANS = (1, 2, 3, 4)
#: Bits that tell where a row of blocks begins, at least.
_ENTRY = 16


@dataclass(frozen=True, order=True)
class Options:
    """`fitted`: contexts start as they did best in a first pass. `profile` 1 has the others.

    `skips` rows of zeros; `limits`: least and largest symbol are known, as by a codebook.
    """

    unary: int
    fitted: int
    profile: int
    skips: int
    limits: int
    scan: int = 0


def main() -> int:
    """Answer the request."""
    request = json.load(sys.stdin)
    whole, beside, found = deepCABAC.Encoder(), 0, []
    for name, array in sorted(load_file(request["arrays"]).items()):
        array = np.ascontiguousarray(array, np.int32)
        size, options = _best(array, request["quick"])
        _put(whole, array, options)
        beside += _beside(array, options)
        found.append({"name": name, "bytes": size, "options": asdict(options)})
    print(json.dumps({"arrays": found, "whole": _whole(whole, beside)}))
    return 0


def _best(array: Array, quick: bool) -> tuple[int, Options]:
    size, options = min((_size(array, tried), tried) for tried in _tried(array, quick))
    if 1 < array.shape[0] < array.size and not quick:
        scans = (replace(options, scan=scan) for scan in _SCANS)
        size, options = min((size, options), *((_size(array, tried), tried) for tried in scans))
    if not options.scan:
        _check(array, options)
    return size, options


def _size(array: Array, options: Options) -> int:
    encoder = deepCABAC.Encoder()
    _put(encoder, array, options)
    return _whole(encoder, _beside(array, options))


def _whole(encoder: Any, bits: int) -> int:
    return int(encoder.finish().size) + -(-bits // 8)


def _beside(array: Array, options: Options) -> int:
    """Bits that a decoder needs beside the stream, at least."""
    bits = 0
    if options.scan:
        bits += _ENTRY * ((array.shape[0] - 1) // (4 << options.scan))
    if options.limits:
        size, zero = _limits(array, options)
        bits += 4 + _exp_golomb(size, 2) + _exp_golomb(abs(zero - size // 2), 2) + 8 + size - 1
    return bits


def _exp_golomb(value: int, order: int) -> int:
    return 2 * ((value >> order) + 1).bit_length() - 1 + order


def _tried(array: Array, quick: bool) -> Iterator[Options]:
    rows = 1 < array.shape[0] < array.size
    for unary in _QUICK_UNARY if quick else _UNARY:
        for fitted in (1,) if quick else (1, 0):
            yield Options(unary, fitted, 0, 0, 0)
            for skips in (0, 1) if rows else (0,):
                yield Options(unary, fitted, 1, skips, 0)
                if array.any():
                    yield Options(unary, fitted, 1, skips, 1)


def _put(encoder: Any, array: Array, options: Options) -> None:
    empty = ~array.reshape(array.shape[0], -1).any(axis=1)
    rows = (empty & bool(options.skips)).astype(np.int32)
    encoder.initCtxModels(options.unary, options.fitted)
    encoder.encodeLayer(
        array, 0, options.scan, options.profile, 0, options.skips, rows, *_NO_HISTORY,
        *_limits(array, options),
    )  # fmt: skip


def _check(array: Array, options: Options) -> None:
    encoder, decoder = deepCABAC.Encoder(), deepCABAC.Decoder()
    _put(encoder, array, options)
    out = np.zeros(array.shape, np.int32)
    decoder.setStream(np.concatenate((encoder.finish(), np.zeros(16, np.uint8))))
    decoder.initCtxModels(options.unary)
    decoder.decodeLayer(
        out, 0, options.scan, options.profile, 0, *_NO_HISTORY, *_limits(array, options)
    )
    if not np.array_equal(out, array):
        raise ValueError(f"{options} does not decode")


def _limits(array: Array, options: Options) -> tuple[int, int]:
    """How many values there are between the least and the largest, and which is zero."""
    if not options.limits:
        return 0, 0
    low, high = min(int(array.min()), 0), max(int(array.max()), 0)
    return high - low + 1, -low


if __name__ == "__main__":
    sys.exit(main())
