"""The plan: from what a device holds to the version it should run.

Pure: no database, no clock. The rules, the first that applies wins:

1. a slot holds the version                  -> `Switch`, 0 bytes
2. the version's weights were removed        -> `Hold` weights_removed
3. the device could not store them           -> `Hold` needs_ab
4. an offer was made and is still possible   -> that `Download` again: what has arrived of it on the
                                                device is not thrown away for a few bytes less
5. published packages lead there             -> `Download` of the cheapest that the device decodes,
                                                if the budget allows it
6. a lossless package may still be built     -> `Build`: `xor` where the registry knows weights that
                                                the device holds, else `full`; the device is held
7. packages lead there, above the budget     -> `Hold` over_budget, with the bytes and the budget
8. nothing                                   -> `Hold` build_failed, cannot_decode or
                                                no_suitable_package

A way starts from the weights of any slot, or from nothing, and may be a chain: as many packages as
the device applies in one update, eight at most. What is published and fits comes before what could
be built: nobody builds an `xor` that might be smaller than a package which is within the budget.
What is built is judged by its size once it exists, never by a guess. A budget of 0 is no limit; a
`full` package is like any other: within the budget it is offered, above it the device is held and
tells why. The budget is checked at every plan, also for an offer that was made before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from server.planner.abilities import FULL, LOSSLESS, XOR, Abilities
from server.planner.paths import Offer, Packages, Path
from shared.wire import MAX_CHAIN


@dataclass(frozen=True)
class Holding:
    """What a device has said of itself. Digests in hex."""

    current: str | None
    slots: frozenset[str] = frozenset()
    abilities: Abilities = field(default_factory=Abilities)

    @property
    def weights(self) -> frozenset[str]:
        """Everything it holds, in use or not."""
        return self.slots | {self.current} if self.current else self.slots


@dataclass(frozen=True)
class Wanted:
    """A lossless package that is not there yet: `xor` from a version, or `full` without one."""

    version_id: int
    base_id: int | None = None

    @property
    def method(self) -> str:
        """Id of the method."""
        return FULL if self.base_id is None else XOR


@dataclass(frozen=True)
class Target:
    """The version to come to. `bases`: weights digest -> id, where an `xor` may start from.

    `fits`: as far as anybody knows, the device can store it: in place only the same tensors can be.
    """

    version_id: int
    digest: str
    bases: Mapping[str, int] = field(default_factory=dict)
    is_removed: bool = False
    fits: bool = True


@dataclass(frozen=True)
class Terms:
    """What else counts: bytes that an update may cost (0: any), and what was tried before."""

    budget: int = 0
    standing: tuple[int, ...] = ()
    """Ids of the packages that were offered, in order; none: no offer was made."""
    unbuildable: Collection[Wanted] = ()
    """Builds that failed a short while ago."""

    def allow(self, path: Path) -> bool:
        """Whether the packages are within the budget."""
        return not self.budget or bytes_of(path) <= self.budget


@dataclass(frozen=True)
class Switch:
    """The device holds the version already."""


@dataclass(frozen=True)
class Download:
    """The device gets these packages, and applies them in order."""

    packages: Path


@dataclass(frozen=True)
class Build:
    """No package suits; this one may, once it is built."""

    wanted: Wanted

    @property
    def reason(self) -> str:
        """Why the device is held meanwhile."""
        return "package_being_built"

    @property
    def detail(self) -> dict[str, Any]:
        """What is being built."""
        return {"method": self.wanted.method}


@dataclass(frozen=True)
class Hold:
    """Nothing takes the device there, for this reason; `detail` has its figures."""

    reason: str
    detail: dict[str, Any] | None = None


Plan: TypeAlias = Switch | Download | Build | Hold


def bytes_of(path: Path) -> int:
    """What a way costs."""
    return sum(offer.size for offer in path)


def way_of(path: Path) -> str:
    """How a device comes to the target, in one word."""
    return way_by([offer.needs.method for offer in path])


def way_by(methods: Sequence[str]) -> str:
    """The word for packages of these methods, in their order."""
    if not methods:
        return "switch"
    if len(methods) > 1:
        return "chain"
    return {XOR: "lossless", FULL: "full"}.get(methods[0], "direct")


def plan(device: Holding, target: Target, packages: Packages, terms: Terms) -> Plan:
    """How a device comes to the target; see the rules above."""
    if target.digest in device.weights:  # 1
        return Switch()
    if target.is_removed:  # 2
        return Hold("weights_removed")
    if not target.fits:  # 3
        return Hold("needs_ab")
    standing = _standing(device, target, packages, terms)
    if standing is not None and terms.allow(standing):  # 4
        return Download(standing)
    cheapest = _cheapest(device, target, packages)
    if cheapest is not None and terms.allow(cheapest):  # 5
        return Download(cheapest)
    missing = [w for w in _lossless(device, target) if not _is_published(w, target, packages)]
    for wanted in missing:
        if wanted not in terms.unbuildable:  # 6
            return Build(wanted)
    if cheapest is not None:  # 7
        return Hold("over_budget", {"bytes": bytes_of(cheapest), "budget": terms.budget})
    return Hold(_why_nothing(device, target, packages, bool(missing)))  # 8


def _standing(device: Holding, target: Target, packages: Packages, terms: Terms) -> Path | None:
    """The packages offered before, if they are still there and still lead from here to there."""
    path = tuple(packages.by_id[id_] for id_ in terms.standing if id_ in packages.by_id)
    if not path or len(path) != len(terms.standing):
        return None
    places = [path[0].base, *(offer.target for offer in path)]
    is_way = (
        places[0] in device.weights | {None}
        and places[-1] == target.digest
        and all(offer.base == place for offer, place in zip(path, places, strict=False))
        and len(path) <= device.abilities.most_packages
        and all(device.abilities.decodes(offer.needs) for offer in path)
    )
    return path if is_way else None


def _cheapest(device: Holding, target: Target, packages: Packages) -> Path | None:
    def usable(offer: Offer) -> bool:
        return device.abilities.decodes(offer.needs)

    starts = device.weights | {None}
    return packages.cheapest(starts, target.digest, device.abilities.most_packages, usable)


def _lossless(device: Holding, target: Target) -> Iterator[Wanted]:
    """The lossless packages that would serve the device, in the order in which they are tried.

    From the weights in use rather than from those of another slot.
    """
    known = sorted(device.weights & target.bases.keys(), key=lambda d: (d != device.current, d))
    if known and device.abilities.decodes(LOSSLESS[XOR]):
        yield Wanted(target.version_id, target.bases[known[0]])
    if device.abilities.decodes(LOSSLESS[FULL]):
        yield Wanted(target.version_id)


def _is_published(wanted: Wanted, target: Target, packages: Packages) -> bool:
    ids = {id_: digest for digest, id_ in target.bases.items()}
    base = None if wanted.base_id is None else ids[wanted.base_id]
    return packages.has(base, target.digest, wanted.method)


def _why_nothing(device: Holding, target: Target, packages: Packages, failed: bool) -> str:
    if failed:
        return "build_failed"
    starts = device.weights | {None}
    way = packages.cheapest(starts, target.digest, MAX_CHAIN, lambda _: True)
    return "no_suitable_package" if way is None else "cannot_decode"
