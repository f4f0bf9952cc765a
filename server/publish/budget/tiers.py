"""From the size of a package to what is trained for it. Pure: no files, no training.

    gains    biases and BatchNorm only, where hardly anything else has room
    sparse   a change of few weights, trained for an aim in bytes
    direct   a change of every weight, where there is room for that

What an aim leads to differs from model to model: what was measured corrects it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from server.publish.budget.curve import Point
from shared import methods

#: Bytes of a weight of `direct` at 8 bits, and of an element of biases and BatchNorm, about: both
#: were measured on VGG-small.
_A_WEIGHT, _A_VECTOR = 0.9, 0.5
_FULL_BITS, _FEWEST_BITS = 8, 3
#: Fewer bytes than these are not worth a change of matrices.
_FEWEST = 32
#: How far a size may be from its aim for the aim alone to be corrected. Beyond, the price had no
#: time to follow, or the steps were no match for it: then the rate at which it begins is corrected.
_TRUSTED = 1.4
#: Bytes fall about as the rate to this power (trials on VGG-small); it changes by so much at once.
_POWER, _AT_ONCE = 1.5, 64.0


@dataclass(frozen=True)
class Facts:
    """What is known before any training: bytes of a package that changes nothing; element counts.

    `weights` are those of matrices, `vectors` those of biases and BatchNorm.
    """

    least: int
    weights: int
    vectors: int


@dataclass(frozen=True)
class Trial:
    """What to train: a method, its options, and what differs from the recipe of the request.

    `rate` is a factor on the learning rate of matrices.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    matrices: bool = True
    rate: float = 1.0


GAINS = Trial("sparse", matrices=False)
DIRECT = Trial("direct", {"bits": _FULL_BITS})


def trial_for(size: float, facts: Facts, points: Sequence[Point]) -> Trial:
    """What makes the best use of about `size` bytes."""
    room = size - overhead(facts, points)
    if room < _FEWEST:
        return GAINS
    if room >= _A_WEIGHT * facts.weights:
        return DIRECT
    return Trial("sparse", _aimed(size, room, facts, points))


def dense_within(size: float, facts: Facts, points: Sequence[Point]) -> Trial | None:
    """A dense change on a grid coarse enough for `size`, where there is one."""
    room = size - overhead(facts, points)
    bits = math.floor(_FULL_BITS * room / (_A_WEIGHT * max(facts.weights, 1)))
    return Trial("direct", {"bits": min(bits, _FULL_BITS)}) if bits >= _FEWEST_BITS else None


def overhead(facts: Facts, points: Sequence[Point]) -> float:
    """Bytes beside those of the matrices: measured where a package without them was made."""
    for point in points:
        if not (point.matrices or point.fitted):
            return point.bytes
    return facts.least + _A_VECTOR * facts.vectors


def _aimed(size: float, room: float, facts: Facts, points: Sequence[Point]) -> dict[str, Any]:
    """Options of `sparse` for `room` bytes, corrected by the point whose size is nearest."""
    aimed = [p for p in points if "bytes" in p.options and not p.fitted]
    if not aimed:
        return {"bytes": round(room)}
    nearest = min(aimed, key=lambda p: abs(math.log(p.bytes / size)))
    given = {name: value for name, value in nearest.options.items() if name == "rate"}
    came = max(nearest.bytes - overhead(facts, points), 1.0)
    share = came / nearest.options["bytes"]
    if 1 / _TRUSTED <= share <= _TRUSTED:
        return {"bytes": max(1, round(room / share)), **given}
    rate = given.get("rate", methods.SparseOptions().rate)
    change = min(max((came / room) ** (1 / _POWER), 1 / _AT_ONCE), _AT_ONCE)
    return {"bytes": round(room), "rate": float(f"{min(rate * change, 1.0):.2g}")}
