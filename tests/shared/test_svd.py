"""The factorisation, and a basis that does not depend on who computed the vectors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shared import svd

Matrix = NDArray[np.float64]


def orthogonal(size: int, seed: int = 0) -> Matrix:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def with_spectrum(o: int, i: int, s: list[float], seed: int = 1) -> Matrix:
    m = len(s)
    return orthogonal(o, seed)[:, :m] @ np.diag(s) @ orthogonal(i, seed + 1)[:, :m].T


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (9, 9), (1, 7), (7, 1), (1, 1)])
def test_the_spectral_operator_is_the_factorised_change(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    W = rng.standard_normal(shape)
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    ds = rng.standard_normal(s.size)
    vectors, values = svd.short_side(W)
    P = svd.spectral_operator(vectors, values, ds)
    change = P @ W if shape[0] <= shape[1] else W @ P
    assert np.allclose(values, s, rtol=1e-12)
    assert np.allclose(change, U @ np.diag(ds) @ Vt, atol=1e-12)


def test_a_null_direction_that_stays_divides_nothing() -> None:
    W = with_spectrum(6, 9, [3.0, 2.0, 1.0])
    vectors, s = svd.short_side(W)
    ds = np.array([0.5, -0.5, 0.25, 0.0, 0.0, 0.0])
    P = svd.spectral_operator(vectors, s, ds)
    assert np.isfinite(P).all()
    assert np.linalg.norm(P @ W) == pytest.approx(np.linalg.norm(ds))


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (9, 9)])
def test_right_vectors_span_what_the_svd_says(shape: tuple[int, int]) -> None:
    W = np.random.default_rng(3).standard_normal(shape)
    V, s = svd.right_vectors(W, 4)
    Vt = np.linalg.svd(W, full_matrices=False)[2]
    assert V.shape == (shape[1], 4)
    assert s.size == min(shape)
    assert np.allclose(V @ V.T, Vt[:4].T @ Vt[:4])


def test_rank_counts_what_stands_above_the_null_share() -> None:
    assert svd.rank(np.array([1.0, 0.5, 3e-4, 1e-4, 0.0])) == 3
    assert svd.rank(np.zeros(4)) == 0
    assert svd.rank(np.empty(0)) == 0


@pytest.mark.parametrize(
    ("s", "clusters"),
    [
        ([], []),
        ([1.0], [(0, 1)]),
        ([1.0, 0.5, 0.2], [(0, 1), (1, 1), (2, 1)]),
        ([1.0, 1.0, 0.5, 0.5 - 1e-4], [(0, 2), (2, 2)]),
        ([1.0, 1.0 - 1e-4, 1.0 - 2e-4, 0.5], [(0, 3), (3, 1)]),  # a chain of small gaps
        ([0.0, 0.0], [(0, 2)]),
    ],
)
def test_neighbours_closer_than_the_tie_share_are_one_cluster(
    s: list[float], clusters: list[tuple[int, int]]
) -> None:
    assert svd.ties(np.array(s)) == clusters


def test_the_basis_does_not_feel_signs_nor_rotations_inside_a_cluster() -> None:
    V = orthogonal(12)[:, :6]
    clusters = [(0, 1), (1, 3), (4, 1), (5, 1)]
    reference, pivot = svd.basis(V, clusters, key=5)
    turned = V * np.array([-1, 1, 1, 1, -1, 1])
    turned[:, 1:4] = turned[:, 1:4] @ orthogonal(3, seed=8)
    again, _ = svd.basis(turned, clusters, key=5)
    assert pivot > svd.MIN_PIVOT
    assert np.abs(again - reference).max() < 1e-13
    assert np.allclose(reference.T @ reference, np.eye(6))
    assert np.allclose(reference @ reference.T, V @ V.T)


def test_the_basis_does_feel_a_rotation_across_clusters() -> None:
    V = orthogonal(12)[:, :4]
    turned = V @ orthogonal(4, seed=8)
    clusters = [(j, 1) for j in range(4)]
    assert np.abs(svd.basis(V, clusters, 5)[0] - svd.basis(turned, clusters, 5)[0]).max() > 0.01


def test_another_seed_gives_another_basis_of_the_same_space() -> None:
    V = orthogonal(12)[:, :4]
    one, other = svd.basis(V, [(0, 4)], 1)[0], svd.basis(V, [(0, 4)], 2)[0]
    assert np.abs(one - other).max() > 0.01
    assert np.allclose(one @ one.T, other @ other.T)


def test_a_vector_that_hides_from_the_signs_has_a_small_pivot() -> None:
    key, size = 3, 8
    sign = svd.prng.signs(key, 0, size).astype(np.float64)
    hidden = np.zeros(size)
    hidden[0], hidden[1] = sign[1], -sign[0]  # orthogonal to the signs of this key
    _, pivot = svd.basis((hidden / np.sqrt(2))[:, None], [(0, 1)], key)
    assert pivot < svd.MIN_PIVOT
