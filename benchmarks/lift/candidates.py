"""What is compared. A family is a row of the table: its candidates differ in how they are trained.

Sizes are part of a family (`sparse` at 1,000 bytes is one), rates are what is tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_FLOAT = 4

#: Matrices' bytes that `sparse` aims for; about 650 more are container, biases and BatchNorm.
AIMS = (600, 1200, 2400, 6000, 16000)


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
        tuned = [f"{key[0]}{value:g}" for key, value in self.recipe.items() if key in _TUNED]
        return "-".join([self.family, *tuned])

    def bytes(self, package: int, count: int) -> int:
        """What the update takes."""
        return _FLOAT * count if self.as_floats else package


_TUNED = ("learning_rate", "vector_rate")


def _at_rates(rates: tuple[float, ...], **given: Any) -> list[Candidate]:
    return [Candidate(recipe={"learning_rate": rate}, **given) for rate in rates]


def _rounded_late(candidates: list[Candidate]) -> list[Candidate]:
    """As the paper trains: nothing is rounded; 16 bits stand for floats, and lose nothing."""
    return [
        Candidate(c.family, c.method, {**c.options, "bits": 16}, {**c.recipe, "rounding": 0}, True)
        for c in candidates
    ]


def grid() -> dict[str, list[Candidate]]:
    """The candidates of each family."""
    factors, masks = (3e-3, 1e-2, 3e-2), (1e-2, 3e-2, 1e-1)
    families = [
        [Candidate("control", "direct", {}, {"matrices": False})],
        _rounded_late(_at_rates(factors, family="ka-3", method="ka", options={"rank": 3})),
        *(
            _at_rates(factors, family=f"ka-3-{bits}bit", method="ka", options=_ka(bits))
            for bits in (5, 4, 3)
        ),
        _at_rates(masks, family="rm-5", method="rm", options={"proportion": 0.05, "bits": 4}),
        *(
            _at_rates((2e-2, 5e-2), family=f"sparse-{aim}", method="sparse", options={"bytes": aim})
            for aim in AIMS
        ),
        _at_rates((1e-2, 3e-2), family="direct", method="direct", options={}),
    ]
    return {candidates[0].family: candidates for candidates in families}


def _ka(bits: int) -> dict[str, int]:
    return {"rank": 3, "bits": bits}
