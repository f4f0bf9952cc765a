"""Coders: what goes in comes out, streams that are cut or go on are refused, memory is bounded."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shared import coding
from shared.errors import BadPackage
from shared.tensors import STORAGE, TensorSpec

ZSTD = coding.coder("zstd/1")
SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18" + bytes(4)


def source_of(data: bytes) -> coding.SymbolSource:
    return ZSTD.source(io.BytesIO(data))


def stream_of(data: bytes) -> bytes:
    file = io.BytesIO()
    sink = coding.ByteSink(file)
    sink.write(data)
    sink.close()
    return file.getvalue()


@given(
    st.lists(
        st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=20).map(
            lambda values: np.array(values, np.int64)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_symbols_come_back_in_order(arrays: list[Any]) -> None:
    arrays = [np.clip(a, -(1 << 30), 1 << 30) for a in arrays]
    symbols = source_of(ZSTD.encode(arrays))
    for array in arrays:
        assert np.array_equal(symbols.read(array.size), array)
    symbols.finish()


@pytest.mark.parametrize(("largest", "width"), [(127, 1), (128, 2), (32767, 2), (32768, 4)])
def test_symbols_take_as_many_bytes_as_the_largest_needs(largest: int, width: int) -> None:
    for sign in (1, -1):
        coded = ZSTD.encode([np.array([0, sign * largest])])
        assert coded[0] == width
        assert source_of(coded).read(2).tolist() == [0, sign * largest]


def test_asking_for_more_symbols_than_there_are_is_refused() -> None:
    symbols = source_of(ZSTD.encode([np.arange(5)]))
    with pytest.raises(BadPackage, match="end too early"):
        symbols.read(6)


def test_symbols_left_over_are_refused() -> None:
    symbols = source_of(ZSTD.encode([np.arange(5)]))
    symbols.read(4)
    with pytest.raises(BadPackage, match="go on after their end"):
        symbols.finish()


def test_a_stream_cut_anywhere_is_refused() -> None:
    data = np.random.default_rng(0).integers(0, 9, 5000).astype(np.uint8).tobytes()
    coded = stream_of(data)
    for size in (*range(0, len(coded), 37), *range(len(coded) - 9, len(coded))):
        with pytest.raises(BadPackage, match=r"package\.malformed"):
            coding.ByteSource(io.BytesIO(coded[:size]))


@pytest.mark.parametrize("tail", [b"x", b"\0" * 100, stream_of(b"more"), b"x" * 200_000])
def test_bytes_after_the_stream_are_refused(tail: bytes) -> None:
    with pytest.raises(BadPackage, match=r"package\.malformed"):
        coding.ByteSource(io.BytesIO(stream_of(b"abc" * 100) + tail))


def test_a_stream_of_nothing_holds_nothing() -> None:
    with pytest.raises(BadPackage, match="do not begin"):
        coding.ByteSource(io.BytesIO(b""))
    coding.ByteSource(io.BytesIO(stream_of(b""))).finish()


@pytest.mark.parametrize("width", [b"", b"\0", b"\3", b"\x08", b"\xff"])
def test_an_unknown_width_is_refused(width: bytes) -> None:
    with pytest.raises(BadPackage, match="unknown width"):
        source_of(width + stream_of(b"abc"))


def test_a_stream_that_wants_a_large_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    large = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    coded = large.compress(bytes(1000)) + large.flush()  # its size is unknown to its header
    with pytest.raises(BadPackage, match="damaged"):
        coding.ByteSource(io.BytesIO(coded)).read(1000)


def test_a_bomb_is_read_no_further_than_asked() -> None:
    bomb = stream_of(bytes(1 << 26))
    assert len(bomb) < 10_000
    source = coding.ByteSource(io.BytesIO(bomb))
    assert source.read(1000) == bytes(1000)
    with pytest.raises(BadPackage, match="go on after their end"):
        source.finish()


@pytest.mark.parametrize("id_", ["", "zstd", "zstd/2", "range/9"])
def test_an_unknown_coder_is_refused(id_: str) -> None:
    with pytest.raises(BadPackage, match=r"package\.unknown_coder"):
        coding.coder(id_)


@pytest.mark.parametrize("dtype", sorted(STORAGE))
@pytest.mark.parametrize("size", [0, 1, 7])
def test_shuffle_and_xor_are_undone(dtype: str, size: int) -> None:
    spec, rng = TensorSpec("x", dtype, (size,)), np.random.default_rng(size)
    a, b = (rng.integers(0, 256, spec.nbytes, np.uint8).view(STORAGE[dtype]) for _ in range(2))
    assert coding.unshuffle(coding.shuffle(a), spec).tobytes() == a.tobytes()
    difference = coding.xor(a, b)
    assert difference.dtype == a.dtype
    assert coding.xor(a, difference).tobytes() == b.tobytes()
    assert coding.xor(a, a).tobytes() == bytes(spec.nbytes)


def test_shuffle_puts_first_bytes_first() -> None:
    assert coding.shuffle(np.array([0x0201, 0x0403], np.uint16)) == bytes([1, 3, 2, 4])


@pytest.mark.parametrize("extra", [zstandard.compress(b""), SKIPPABLE_FRAME])
def test_frames_without_content_are_refused_before_and_after(extra: bytes) -> None:
    coded = ZSTD.encode([np.arange(-50, 50)])
    for data in (coded + extra, coded[:1] + extra + coded[1:]):
        with pytest.raises(BadPackage, match=r"package\.malformed"):
            source_of(data)


def test_large_frames_of_every_block_type_end_where_they_end() -> None:
    noise = np.random.default_rng(0).integers(-127, 128, 300_000)
    symbols = np.concatenate((noise, np.zeros(500_000, np.int64), noise % 3))
    source = source_of(ZSTD.encode([symbols]))
    assert np.array_equal(source.read(symbols.size), symbols)
    source.finish()
