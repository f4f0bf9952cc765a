"""What is compared. A family is a row of a table: its candidates differ in how they are trained.

A family's name says all about it:

    control          biases and BatchNorm alone
    dense            every weight retrained
    ka-3             rank 3, as the paper sends it: nothing rounded, 4 bytes a learnable parameter
    ka-3-4bit        trained for symbols of 4 bits, as a package
    ka-3-coded       trained with steps of a quarter of the spread of each part, as a package
    lora-2-alone     the same, of matrices only: biases and norms stay, as LoRA is often used
    rm-4.8           a seeded mask of 4.8% of the weights; sizes of the others are ranks
    sparse-1200      `sparse` with an aim of 1,200 bytes for its symbols
    sparse-1200-taught   the same by what a teacher answers, which was retrained densely for longer
    fp-50            half of the filters removed (see benchmarks.paper.filter_pruning)

Sizes belong to a family, learning rates are what is tuned: each method's own, a third and three
times that, and further where an end of these does best. The sizes of a method share the rate that
was found for its usual one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from server.refine.initial import RATE
from server.refine.reparam import REPARAMS

_FLOAT = 4
#: Stand for floats, and lose nothing.
_AS_FLOATS = 16
#: The grid of every method, in its own default rate; where its end does best, it goes on.
RATES = (1 / 3, 1.0, 3.0)
#: The sizes at which a method is tuned; others take the rate of the nearest.
_TUNED_AT = {
    "ka": (3,), "lra": (16,), "lru": (22,), "ml": (20,), "ml_delta": (20,), "rm": (4.8,),
    "sparse": (1200, 6000), "lora": (2,), "fp": (50,),
}  # fmt: skip
#: How families end that are sent as packages; and the steps of `coded`, in spreads.
_CODED, _GRAIN = ("bit", "coded"), 0.25
_TAUGHT = {"distillation": 1.0, "teacher_epochs": 20}
_OPTION = {"rm": "proportion", "sparse": "bytes", "fp": "percent"}
#: Those that send no package, with the rate of training from scratch.
_NO_PACKAGE = {"fp": RATE}


@dataclass(frozen=True)
class Candidate:
    """A way to refine. `as_floats`: counted as the paper counts, 4 bytes a learnable parameter."""

    family: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    as_floats: bool = False

    @property
    def name(self) -> str:
        """Family and what was tuned, fit for a file's name."""
        rate = self.recipe.get("learning_rate")
        return self.family if rate is None else f"{self.family}-l{rate:.3g}"

    def bytes(self, package: int, count: int) -> int:
        """What the update takes."""
        return _FLOAT * count if self.as_floats else package


def candidates(family: str) -> list[Candidate]:
    """Those of a family; one alone where nothing is tuned. Raises ValueError for an unknown one."""
    own = _own_rate(_plain(family))
    return [_plain(family)] if own is None else [at_rate(family, own * x) for x in RATES]


def _plain(family: str) -> Candidate:
    """Without a rate."""
    if family == "control":
        return Candidate(family, "direct", {}, {"matrices": False})
    method, *rest = family.split("-")
    coded = rest.pop() if rest and rest[-1].endswith(_CODED) else ""
    recipe = {"vectors": False} if "alone" in rest else dict(_TAUGHT) if "taught" in rest else {}
    plain = Candidate(family, method, recipe=recipe)
    if method == "dense":
        plain = replace(plain, method="direct")
    elif method in _OPTION or method in _TUNED_AT:
        plain = replace(plain, options=_size(method, rest[0]))
    if plain.method not in REPARAMS and plain.method not in _NO_PACKAGE:
        raise ValueError(f"no family {family!r}")
    if coded:
        return replace(plain, options={**plain.options, **_coded(coded)})
    if method == "sparse" or method in _NO_PACKAGE:
        return plain
    options = {**plain.options, "bits": _AS_FLOATS}
    return replace(plain, options=options, recipe={**plain.recipe, "rounding": 0}, as_floats=True)


def _own_rate(plain: Candidate) -> float | None:
    """The method's default; None where the family trains nothing that has one."""
    if not plain.recipe.get("matrices", True):
        return None
    return _NO_PACKAGE.get(plain.method) or REPARAMS[plain.method].rate


def _coded(how: str) -> dict[str, Any]:
    return {"grain": _GRAIN} if how == "coded" else {"bits": int(how.removesuffix("bit"))}


def _size(method: str, size: str) -> dict[str, Any]:
    if method == "rm":
        return {"proportion": float(size) / 100}
    return {_OPTION.get(method, "rank"): int(size)}


def tuned_as(family: str) -> str:
    """The family whose tuning serves this one: the same method at a usual size, as coarse."""
    method, *rest = family.split("-")
    coded = [part for part in rest if part.endswith(_CODED)]
    if method not in _TUNED_AT:
        return "-".join([method, *coded])
    own = float(rest[0])
    nearest = min(_TUNED_AT[method], key=lambda size: abs(math.log(size / own)))
    return "-".join([method, f"{nearest:g}", *coded])


def at_rate(family: str, rate: float | None) -> Candidate:
    """The family's candidate of that rate."""
    plain = _plain(family)
    if rate is None:
        return plain
    return replace(plain, recipe={**plain.recipe, "learning_rate": float(f"{rate:.3g}")})
