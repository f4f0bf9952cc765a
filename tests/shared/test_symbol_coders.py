"""`range/2` and `dense/1`: what goes in comes out, in pieces of any size, and damage is refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared import coding, dense_coding, prng, tokens
from shared.errors import BadPackage
from tests.shared.symbols import laplace, trained

NEW = ("range/2", "dense/1")
arrays_of_symbols = st.lists(
    st.lists(
        st.one_of(
            st.just(0),
            st.integers(-3, 3),
            st.integers(-300, 700),
            st.integers(-(1 << 30) + 1, (1 << 30) - 1),
        ),
        max_size=60,
    ).map(lambda values: np.array(values, np.int64)),
    max_size=4,
)


@contextmanager
def small_lanes() -> Iterator[None]:
    """Any array that is not zero goes in lanes, in small blocks of short runs."""
    small = {
        dense_coding: {"_MANY": 1, "_OFTEN": 1000, "_LEAST": 1, "_WORTH": 3},
        tokens: {"_RUN": 2},
    }
    patches = [mock.patch.multiple(module, **values) for module, values in small.items()]
    sizes = [mock.patch.object(module, "BLOCK", 16) for module in (tokens, dense_coding)]
    with patches[0], patches[1], sizes[0], sizes[1]:
        yield


def decoded(id_: str, data: bytes, sizes: list[int], piece: int = 1 << 20) -> list[Any]:
    source = coding.coder(id_).source(io.BytesIO(data))
    out = []
    for size in sizes:
        source.start()
        pieces = [source.read(min(piece, size - at)) for at in range(0, size, piece)]
        out.append(np.concatenate([np.empty(0, np.int64), *pieces]))
    source.finish()
    return out


def same(left: list[NDArray[np.int64]], right: list[NDArray[np.int64]]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("id_", NEW)
@given(arrays=arrays_of_symbols, piece=st.integers(1, 70))
def test_arrays_come_back_in_pieces_of_any_size(id_: str, arrays: list[Any], piece: int) -> None:
    with small_lanes():
        data = coding.coder(id_).encode(arrays)
        assert same(arrays, decoded(id_, data, [a.size for a in arrays], piece))


@pytest.mark.parametrize("id_", NEW)
@given(
    arrays=arrays_of_symbols,
    tail=st.binary(min_size=1, max_size=3),
    cut=st.integers(1, 40),
    flip=st.integers(0, 1 << 16),
)
def test_no_other_bytes_near_by_stand_for_the_same(
    id_: str, arrays: list[Any], tail: bytes, cut: int, flip: int
) -> None:
    with small_lanes():
        data = coding.coder(id_).encode(arrays)
        flipped = bytearray(data)
        flipped[(flip >> 3) % len(data)] ^= 1 << (flip & 7)
        for other in (data + tail, data[:-cut], data[:-1] + tail, bytes(flipped)):
            if other in (data, b""):  # no bytes at all are no coded symbols
                continue
            try:
                found = decoded(id_, other, [a.size for a in arrays])
            except BadPackage:
                continue
            assert not same(arrays, found)


@pytest.mark.parametrize("id_", NEW)
@given(data=st.binary(max_size=200), size=st.integers(0, 5000))
def test_any_bytes_decode_or_are_refused(id_: str, data: bytes, size: int) -> None:
    try:
        (found,) = decoded(id_, data, [size])
    except BadPackage:
        return
    assert decoded(id_, coding.coder(id_).encode([found]), [size])[0].tolist() == found.tolist()


def several() -> list[NDArray[np.int64]]:
    """Dense arrays of more than a block, fine and coarse, among others; the same everywhere."""
    words = prng.words(16, 0, 220_000)
    bits = (words >> np.uint64(40)).astype(np.int64)
    sparse = np.where(words % np.uint64(50) == 0, bits % 9, 0)
    coarse = ((bits & 7) + (bits >> 3 & 7) + (bits >> 6 & 7) - 10)[:150_001]
    fine = (bits & 0xFFFF)[:9_000] - 30_000
    same = np.full(5_000, -3, np.int64)
    return [sparse[:4000], coarse, np.zeros(1000, np.int64), fine, same, bits[:7] % 40 - 20]


HASHES = {
    "range/2": "7b953958f720043e4a9831f8ef918d97b63621484761538cba4b8386a14c384c",
    "dense/1": "6fcaa56552a525d4d6e3670c2fd1d74db87231f2f1e19902b1b45d1921f846e4",
}


@pytest.mark.parametrize("id_", NEW)
def test_the_coded_bytes_never_change(id_: str) -> None:
    arrays = several() if id_ == "dense/1" else [a[:4000] for a in several()]
    data = coding.coder(id_).encode(arrays)
    assert hashlib.sha256(data).hexdigest() == HASHES[id_]
    assert same(arrays, decoded(id_, data, [a.size for a in arrays], 9999))


def test_a_damaged_dense_stream_is_refused_wherever_it_is_damaged() -> None:
    symbols = laplace(9_000, 0.5, 1)
    data = coding.coder("dense/1").encode([symbols])
    places = np.random.default_rng(0).integers(0, len(data), 12)
    for place in (0, 3, 4, *range(len(data) - 3, len(data)), *places.tolist()):
        for damaged in (
            data[:place],
            data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :],
            data[:place] + data[place + 1 :],
        ):
            with pytest.raises(BadPackage):
                decoded("dense/1", damaged, [symbols.size])


@pytest.mark.parametrize("id_", NEW)
@pytest.mark.parametrize("zeros", [0.1, 0.97])
def test_asking_for_more_or_less_than_there_is_gives_nothing_wrong(id_: str, zeros: float) -> None:
    symbols = laplace(10_000, zeros, 2)
    symbols[-1] = 5
    data = coding.coder(id_).encode([symbols])
    with pytest.raises(BadPackage):
        decoded(id_, data, [symbols.size - 1])
    if id_ == "dense/1" and zeros < 0.5:
        with pytest.raises(BadPackage, match="symbols are left"):
            decoded(id_, data, [symbols.size // 2, symbols.size // 2])
        with pytest.raises(BadPackage, match="end too early"):
            decoded(id_, data, [symbols.size + 1])


@pytest.mark.parametrize("head", [b"", b"\1", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\0\x0b"])
def test_a_dense_stream_that_does_not_begin_is_refused(head: bytes) -> None:
    with pytest.raises(BadPackage):
        coding.coder("dense/1").source(io.BytesIO(head))


def test_many_symbols_in_few_lanes_are_refused_before_they_are_decoded() -> None:
    symbols = laplace(30_000, 0.3, 1)
    with mock.patch.object(dense_coding, "_WORTH", 32):
        data = coding.coder("dense/1").encode([symbols])
    source = coding.coder("dense/1").source(io.BytesIO(data))
    with pytest.raises(BadPackage, match="lanes"):
        source.start()


def test_what_a_dense_stream_claims_takes_no_memory() -> None:
    claimed = [np.ones(1 << 20, np.int64)]
    data = coding.coder("dense/1").encode(claimed)
    assert len(data) < 10_000
    source = coding.coder("dense/1").source(io.BytesIO(data))
    source.start()
    assert source.read(3).tolist() == [1, 1, 1]
    with pytest.raises(BadPackage, match="symbols are left"):
        source.finish()


def test_more_symbols_than_are_decoded_one_by_one_go_in_lanes() -> None:
    dense = laplace(200_000, 0.3, 3)
    assert coding.smallest([dense]) == "dense/1"
    assert coding.smallest([dense[:5_000]]).startswith("range/")
    # The same one over and over is what zstd is good at.
    assert coding.smallest([np.ones((1 << 17) + 1, np.int64)]) == "zstd/1"


def test_too_many_single_symbols_go_in_lanes_as_well() -> None:
    sparse = [laplace(150_000, 0.9, seed) for seed in range(2)]
    with mock.patch.object(dense_coding, "_MOST_SINGLE", 1 << 14):
        data = coding.coder("dense/1").encode(sparse)
    assert len(data) // 3 < int.from_bytes(data[:4], "little") < len(data) * 2 // 3
    assert same(sparse, decoded("dense/1", data, [a.size for a in sparse], 1 << 17))


def test_trained_symbols_come_back() -> None:
    for update in ("sparse", "ka", "direct"):
        arrays = [a.reshape(-1) for a in trained(update)]
        for id_ in NEW:
            data = coding.coder(id_).encode(arrays)
            assert same(arrays, decoded(id_, data, [a.size for a in arrays]))
