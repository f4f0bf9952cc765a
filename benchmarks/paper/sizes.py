"""From a share of a model's parameters, or another method's count, to the size of a family."""

from __future__ import annotations

import bisect
import functools
import math

from benchmarks.lift.candidates import candidates
from benchmarks.lift.settings import SETTINGS
from benchmarks.paper import filter_pruning
from server import zoo
from shared import methods
from shared.methods.base import LossyMethod

#: The sizes that a method can have, from the least update to the largest.
_RANKS = tuple(str(rank) for rank in range(1, 513))
SIZES: dict[str, tuple[str, ...]] = {
    "ka": _RANKS,
    "ml": _RANKS,
    "lra": _RANKS,
    "lru": _RANKS,
    "rm": (
        *(f"{hundredths / 100:g}" for hundredths in range(1, 200)),
        *(f"{tenths / 10:g}" for tenths in range(20, 1001)),
    ),
    "fp": tuple(str(percent) for percent in range(95, 4, -1)),
}


@functools.cache
def shape(setting: str) -> tuple[tuple[tuple[int, int], ...], int]:
    """The matrices (o, i) of a setting's model, and the count of all other parameters."""
    own = SETTINGS[setting]
    found = list(zoo.get(own.architecture).outline(own.arguments).parameters())
    matrices = tuple((p.shape[0], p[0].numel()) for p in found if p.dim() > 1)
    return matrices, sum(p.numel() for p in found if p.dim() < 2)


def parameters(setting: str) -> int:
    """The learnable parameters of a setting's model."""
    matrices, vectors = shape(setting)
    return vectors + sum(o * i for o, i in matrices)


@functools.cache
def count(setting: str, family: str) -> int:
    """What a family learns, and therefore sends, as the paper counts; see methods.md.

    A matrix that a method would make larger is sent as it is, which is what refinements do.
    """
    own, one = SETTINGS[setting], candidates(family)[0]
    if one.method == "fp":
        whole = zoo.get(own.architecture).outline(own.arguments)
        return filter_pruning.remaining(whole, one.options["percent"])
    matrices, vectors = shape(setting)
    if not one.recipe.get("matrices", True):
        return vectors
    method = methods.get(one.method)
    if not isinstance(method, LossyMethod) or method.id == "direct":
        return parameters(setting)
    options = methods.options(method, one.options)
    return vectors + sum(min(o * i, method.count(o, i, options)) for o, i in matrices)


def nearest(setting: str, method: str, wanted: float) -> str:
    """The family of a method that counts nearest to `wanted`, as a ratio."""
    place = _first_of(setting, method, wanted)
    around = SIZES[method][max(place - 1, 0) : place + 1]
    families = [f"{method}-{size}" for size in around]
    found = min(families, key=lambda family: abs(math.log(count(setting, family) / wanted)))
    return at_least(setting, method, count(setting, found))  # ranks beyond the matrices' add none


def at_least(setting: str, method: str, wanted: float) -> str:
    """The smallest family of a method that counts no less than `wanted`, or its largest."""
    return (
        f"{method}-{SIZES[method][min(_first_of(setting, method, wanted), len(SIZES[method]) - 1)]}"
    )


def _first_of(setting: str, method: str, wanted: float) -> int:
    """The place of the smallest size that counts no less than `wanted`."""
    return bisect.bisect_left(
        SIZES[method], wanted, key=lambda size: count(setting, f"{method}-{size}")
    )
