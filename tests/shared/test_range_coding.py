"""`range/1`: what goes in comes out, in one way only, in hardly more bits than there are."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared import coding, prng
from shared.errors import BadPackage
from shared.range_coder import CERTAIN, Decoder, Encoder
from tests.shared.symbols import entropy, laplace

RANGE = coding.coder("range/1")

arrays_of_symbols = st.lists(
    st.lists(
        st.one_of(
            st.just(0),
            st.integers(-3, 3),
            st.integers(-(1 << 30) + 1, (1 << 30) - 1),
        ),
        max_size=60,
    ).map(lambda values: np.array(values, np.int64)),
    max_size=4,
)


def decoded(data: bytes, sizes: list[int]) -> list[NDArray[np.int64]]:
    source = RANGE.source(io.BytesIO(data))
    out = []
    for size in sizes:
        source.start()
        out.append(source.read(size))
    source.finish()
    return out


@given(arrays_of_symbols)
def test_arrays_come_back(arrays: list[Any]) -> None:
    found = decoded(RANGE.encode(arrays), [a.size for a in arrays])
    assert all(np.array_equal(a, b) for a, b in zip(arrays, found, strict=True))


@given(arrays_of_symbols, st.integers(1, 7))
def test_an_array_is_read_in_pieces_of_any_size(arrays: list[Any], piece: int) -> None:
    source = RANGE.source(io.BytesIO(RANGE.encode(arrays)))
    for array in arrays:
        source.start()
        pieces = [
            source.read(min(piece, array.size - start)) for start in range(0, array.size, piece)
        ]
        assert np.array_equal(np.concatenate([array[:0], *pieces]), array)
    source.finish()


@given(arrays_of_symbols, st.binary(min_size=1, max_size=3), st.integers(0, 5))
def test_no_other_bytes_stand_for_the_same_symbols(
    arrays: list[Any], tail: bytes, cut: int
) -> None:
    data = RANGE.encode(arrays)
    sizes = [a.size for a in arrays]
    for other in (data + tail, data[: max(len(data) - 1 - cut, 0)], data[:-1] + tail):
        if other == data or not other:  # no bytes at all are no coded symbols, see `_NOTHING`
            continue
        try:
            found = decoded(other, sizes)
        except BadPackage:
            continue
        assert not all(np.array_equal(a, b) for a, b in zip(arrays, found, strict=True))


@given(st.binary(max_size=200), st.integers(0, 5000))
def test_any_bytes_decode_or_are_refused(data: bytes, size: int) -> None:
    try:
        (found,) = decoded(data, [size])
    except BadPackage:
        return
    assert decoded(RANGE.encode([found]), [size])[0].tolist() == found.tolist()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, CERTAIN - 1)), max_size=300))
def test_decisions_come_back_however_unlikely(decisions: list[tuple[bool, int]]) -> None:
    encoder = Encoder()
    for decision, probability in decisions:
        encoder.decide(decision, probability)
    decoder = Decoder(encoder.finish())
    assert [decoder.decide(probability) for _, probability in decisions] == [
        decision for decision, _ in decisions
    ]
    decoder.finish()


def test_too_many_bytes_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(BadPackage, match=r"package\.too_large"):
        RANGE.source(io.BytesIO(bytes(coding.MAX_RANGE_BYTES + 1)))


@pytest.mark.parametrize(
    ("size", "zeros", "most"),
    [
        (10_000, 0.9, 1.01),
        (10_000, 0.99, 1.03),
        (100_000, 0.9, 1.005),
        (100_000, 0.99, 1.005),
        (100_000, 0.999, 1.03),
        (1_000_000, 0.99, 1.001),
        (1_000_000, 0.999, 1.005),
    ],
)
def test_it_comes_near_the_entropy(size: int, zeros: float, most: float) -> None:
    for seed in range(3):
        symbols = laplace(size, zeros, seed)
        assert len(RANGE.encode([symbols])) <= most * entropy(symbols) + 0.5  # whole bytes


def test_ten_symbols_in_ten_thousand_cost_three_bytes_more_at_most() -> None:
    for seed in range(10):
        symbols = laplace(10_000, 0.999, seed)
        assert len(RANGE.encode([symbols])) <= entropy(symbols) + 4


def test_many_tensors_share_what_ends_the_bytes() -> None:
    tensors = [laplace(10_000, 0.99, seed) for seed in range(20)]
    assert len(RANGE.encode(tensors)) <= 1.02 * sum(map(entropy, tensors))


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_dense_symbols_stay_below_zstd(bits: int) -> None:
    top = (1 << bits - 1) - 1
    normal = np.random.default_rng(bits).standard_normal((15, 500)) * top / 3.5
    arrays = list(np.rint(normal.clip(-top, top)).astype(np.int64))
    coded = len(RANGE.encode(arrays))
    assert coded < len(coding.coder("zstd/1").encode(arrays))
    assert coding.smallest(arrays) in ("range/1", "range/2")


def test_the_coded_bytes_never_change() -> None:
    words = prng.words(16, 0, 4000)
    sparse = np.where(words % np.uint64(50) == 0, (words >> np.uint64(40)) % np.uint64(9), 0)
    dense = (words >> np.uint64(56)).astype(np.int64) - 128
    data = RANGE.encode(
        [sparse.astype(np.int64) - 4 * (sparse > 4), dense, np.zeros(1000, np.int64)]
    )
    assert hashlib.sha256(data).hexdigest() == (
        "7c705915a47fb665977d432235b8e4bdd1492077d4d9885fed3f3621a226d57d"
    )
