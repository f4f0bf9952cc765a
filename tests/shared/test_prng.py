"""The counter generator: published vectors, and any range without the ones before."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from shared import prng

# SplitMix64 with the seeds 0 and 1234567, as published with the Java and C reference programs.
FROM_0 = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
FROM_1234567 = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_the_words_are_those_of_splitmix64() -> None:
    assert prng.words(0, 0, 4).tolist() == FROM_0
    assert prng.words(1234567, 0, 5).tolist() == FROM_1234567


def test_a_key_close_to_the_top_wraps_as_64_bit_integers_do() -> None:
    key, mask = (1 << 64) - 1, (1 << 64) - 1
    expected = []
    for j in range(1, 4):
        z = (key + j * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        expected.append(z ^ (z >> 31))
    assert prng.words(key, 0, 3).tolist() == expected


@pytest.mark.parametrize("span", [(0, 0), (0, 7), (3, 9), (999, 1000)])
def test_a_range_is_a_slice_of_the_whole(span: tuple[int, int]) -> None:
    key, share = prng.stream_key(5, "layer"), prng.SHARE_ONE // 3
    start, stop = span
    for whole, part in (
        (prng.words(key, 0, 1000), prng.words(key, start, stop)),
        (prng.signs(key, 0, 1000), prng.signs(key, start, stop)),
        (prng.mask(key, 0, 1000, share), prng.mask(key, start, stop, share)),
    ):
        assert np.array_equal(whole[start:stop], part)


def test_each_seed_and_each_tensor_has_a_stream_of_its_own() -> None:
    keys = {prng.stream_key(s, n) for s in range(3) for n in ("a", "b", "1/a", "")}
    assert len(keys) == 12
    digest = hashlib.sha256(b"7/conv.weight").digest()
    assert prng.stream_key(7, "conv.weight") == int.from_bytes(digest[:8], "little")


def test_signs_are_balanced_and_masks_select_their_share() -> None:
    key = prng.stream_key(0, "x")
    signs = prng.signs(key, 0, 100_000)
    assert set(signs.tolist()) == {1, -1}
    assert abs(signs.mean()) < 0.02
    for share in (0.01, 0.3, 0.9):
        chosen = prng.mask(key, 0, 100_000, int(share * prng.SHARE_ONE))
        assert chosen.mean() == pytest.approx(share, abs=0.01)


def test_a_share_of_one_selects_all_and_of_zero_none() -> None:
    assert prng.mask(1, 0, 1000, prng.SHARE_ONE).all()
    assert not prng.mask(1, 0, 1000, 0).any()
