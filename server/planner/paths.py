"""The cheapest way through the published packages of a model. Pure.

Weights are the places, by their digests, and packages the roads between them: from a base to a
target, or from nothing (`None`) for a `full` one. It costs bytes, and it may be only so long.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from server.planner.abilities import Needs
from shared.wire import PACKAGES_PATH, PackageOffer


@dataclass(frozen=True)
class Offer:
    """A published package: from `base` (None: from nothing) to `target`, digests in hex."""

    package_id: int
    base: str | None
    target: str
    needs: Needs
    size: int
    sha256: str = ""


Path: TypeAlias = tuple[Offer, ...]


class Packages:
    """The published packages of one model, by what they start from."""

    def __init__(self, offers: Iterable[Offer] = ()) -> None:
        self._from: dict[str, list[Offer]] = {}
        self._to: dict[str, list[Offer]] = {}
        self._least: dict[str, dict[str, int]] = {}
        self.by_id: dict[int, Offer] = {}
        for offer in offers:
            self._from.setdefault(_place(offer.base), []).append(offer)
            self._to.setdefault(offer.target, []).append(offer)
            self.by_id[offer.package_id] = offer

    def has(self, base: str | None, target: str, method: str) -> bool:
        """Whether there is a package of that method between the two."""
        return any(
            o.target == target and o.needs.method == method
            for o in self._from.get(_place(base), ())
        )

    def cheapest(
        self,
        starts: Collection[str | None],
        target: str,
        most: int,
        usable: Callable[[Offer], bool],
    ) -> Path | None:
        """The way of fewest bytes to `target` from any of `starts`, of at most `most` packages.

        Of two that cost the same, the one with fewer packages, then the one with the older ones.
        Dijkstra's algorithm towards the target (A*: places are taken by the bytes to them and the
        least that is left), with the number of packages as a second cost: a place that was left
        with fewer bytes is left again by a way of fewer packages, which may still go on where the
        first one must end.
        """
        left = self._least_to(target)
        waiting: list[tuple[int, int, tuple[int, ...], int, str]] = [
            (left[place], 0, (), 0, place) for place in map(_place, starts) if place in left
        ]
        heapq.heapify(waiting)
        fewest: dict[str, int] = {}
        while waiting:
            _, hops, ids, spent, place = heapq.heappop(waiting)
            if place == target:
                return tuple(self.by_id[id_] for id_ in ids)
            if hops >= fewest.get(place, most):
                continue
            fewest[place] = hops
            for offer in self._from.get(place, ()):
                is_last = hops + 1 == most
                leads = offer.target == target or (not is_last and offer.target in left)
                if leads and usable(offer):
                    cost, path = spent + offer.size, (*ids, offer.package_id)
                    label = (cost + left[offer.target], hops + 1, path, cost, offer.target)
                    heapq.heappush(waiting, label)
        return None

    def _least_to(self, target: str) -> dict[str, int]:
        """Place -> the fewest bytes from there to `target`, for a device that decodes everything.

        Found once for each target; a place that is not in it leads nowhere.
        """
        known = self._least.get(target)
        if known is not None:
            return known
        found: dict[str, int] = {}
        waiting = [(0, target)]
        while waiting:
            cost, place = heapq.heappop(waiting)
            if place in found:
                continue
            found[place] = cost
            for offer in self._to.get(place, ()):
                heapq.heappush(waiting, (cost + offer.size, _place(offer.base)))
        self._least[target] = found
        return found


def offered(offer: Offer) -> PackageOffer:
    """The offer as a device hears of it."""
    return PackageOffer(
        sha256=offer.sha256,
        size=offer.size,
        url=f"{PACKAGES_PATH}/{offer.sha256}",
        base_digest=offer.base,
        method=offer.needs.method,
    )


def _place(digest: str | None) -> str:
    """A place by its name, which sorts; nothing has the empty one."""
    return digest or ""
