"""Which packages and weights of a model are still needed. Pure: no database, no clock.

    weights    of the newest versions; that a device holds, for it may have to start from them; that
               a rollout which counts leads to or came from; that a refinement starts from; and
               both ends of every package that is needed
    packages   of an open assignment; listed in signed metadata; to one of the newest versions; and
               on any way from weights that a device holds to the target of a rollout which counts

A rollout counts while it is not finished, and afterwards as long as devices may still join it: each
device that enrols later, or comes to match later, joins the newest that it matches. So of those
that finished without being aborted there count the newest of each filter, back to the first that
takes every device. The newest of the model always counts, aborted or not: it may be rolled back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Edge:
    """A package, from one version (None: from nothing) to another; ids."""

    package: int
    base: int | None
    target: int


@dataclass(frozen=True)
class Standing:
    """What there is of a model. All but `edges` and `open_packages`: ids of versions."""

    edges: Collection[Edge]
    newest: frozenset[int]
    held: frozenset[int]
    targets: frozenset[int]
    starts: frozenset[int]
    """That rollouts came from and refinements begin with."""
    open_packages: frozenset[int]
    """Of open assignments, and those listed."""


@dataclass(frozen=True)
class Needed:
    """Ids of the packages and versions that must stay."""

    packages: frozenset[int]
    versions: frozenset[int]


def needed(standing: Standing) -> Needed:
    """What must stay."""
    forward = _reached(standing.held, ((e.base, e.target) for e in standing.edges))
    backward = _reached(standing.targets, ((e.target, e.base) for e in standing.edges))
    kept = [
        edge
        for edge in standing.edges
        if edge.package in standing.open_packages
        or edge.target in standing.newest
        or (edge.target in backward and (edge.base is None or edge.base in forward))
    ]
    ends = {end for edge in kept for end in (edge.base, edge.target) if end is not None}
    versions = standing.newest | standing.held | standing.targets | standing.starts | ends
    return Needed(frozenset(edge.package for edge in kept), versions)


def _reached(starts: Collection[int], steps: Iterable[tuple[int | None, int | None]]) -> set[int]:
    """Where the steps lead from `starts`, with these. A step from nothing can always be taken."""
    following: dict[int | None, set[int]] = {}
    for start, end in steps:
        if end is not None:
            following.setdefault(start, set()).add(end)
    found: set[int] = set()
    waiting = [*starts, *following.get(None, ())]
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting += following.get(here, ())
    return found
