"""Symbols to code: drawn ones, and those of really trained updates; and what they hold at least.

`data/symbols.json` has symbols of VGG-small, refined on CIFAR-10 for 8 epochs: `sparse` with an aim
of 1,200 bytes; `sparse-large`, its matrices alone under a weak price of bytes; `ka` of rank 3 at 4
bits; and `direct`, small layers of a densely retrained one rounded to 4 bits. Of each the shapes of
its tensors, and their symbols one after the other: int8, under zlib, in base64.
"""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.int64]
_TRAINED = Path(__file__).parent / "data" / "symbols.json"


def entropy(symbols: NDArray[np.int64]) -> float:
    """Zero-order, in bytes: of being zero, of the signs, of the magnitudes."""
    others = symbols[symbols != 0]
    counts = (
        np.array([symbols.size - others.size, others.size]),
        np.array([(others > 0).sum(), (others < 0).sum()]),
        np.unique(np.abs(others), return_counts=True)[1],
    )
    shares = [c[c > 0] / c.sum() for c in counts if c.sum()]
    totals = [c.sum() for c in counts if c.sum()]
    return float(-sum(n * (s * np.log2(s)).sum() for n, s in zip(totals, shares, strict=True)) / 8)


def laplace(size: int, zeros: float, seed: int) -> NDArray[np.int64]:
    """Laplace, rounded on a grid with a dead zone that leaves that share of zeros."""
    x = np.random.default_rng(seed).laplace(0, 1, size)
    dead = -np.log(1 - zeros)
    q = np.sign(x) * (1 + np.floor((np.abs(x) - dead) / 1.5))
    return np.where(np.abs(x) > dead, q, 0).astype(np.int64)


@cache
def trained(update: str) -> list[Symbols]:
    """The symbols of an update, as matrices (rows, columns), in the order of a package."""
    found = json.loads(_TRAINED.read_text())[update]
    symbols = np.frombuffer(zlib.decompress(base64.b64decode(found["symbols"])), np.int8)
    shapes = found["shapes"]
    parts = np.split(symbols.astype(np.int64), np.cumsum([o * i for o, i in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
