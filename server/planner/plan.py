"""The plan: from what a device holds to the version it should run.

Pure: no database, no clock. The rules, the first that applies wins:

1. a slot holds the version        -> `Switch`, 0 bytes
2. published packages lead there   -> `Download` of the smallest that the device can use now:
                                      one from its current weights, or a `full` one
3. a `full` package may be built   -> `Build`; until it is there the device is held
4. nothing                         -> `Hold`, with the reason
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

FULL = "full"


@dataclass(frozen=True)
class Holding:
    """What a device has said of itself. Digests in hex; no methods: it has not said."""

    current: str | None
    slots: frozenset[str] = frozenset()
    methods: Mapping[str, int] = field(default_factory=dict)

    def knows(self, method: str) -> bool:
        """Whether the device decodes packages of this method, as far as it has said."""
        return not self.methods or method in self.methods


@dataclass(frozen=True)
class Offer:
    """A published package: from `base` (None: from nothing) to `target`."""

    package_id: int
    base: str | None
    target: str
    method: str
    size: int

    def suits(self, device: Holding) -> bool:
        """Whether the device can use it as it stands."""
        return self.base in (None, device.current) and device.knows(self.method)


@dataclass(frozen=True)
class FullPackage:
    """What `publish.on_demand` is asked for: a `full` package of a version."""

    model_id: int
    version_id: int


@dataclass(frozen=True)
class Switch:
    """The device holds the version already."""


@dataclass(frozen=True)
class Download:
    """The device gets this package."""

    offer: Offer


@dataclass(frozen=True)
class Build:
    """No package suits; this one would."""

    wanted: FullPackage
    reason: str = "package_being_built"


@dataclass(frozen=True)
class Hold:
    """Nothing takes the device there."""

    reason: str


Plan: TypeAlias = Switch | Download | Build | Hold


def plan(device: Holding, target: str, offers: Iterable[Offer], full: FullPackage) -> Plan:
    """The cheapest way to the weights `target` (hex digest) for a device."""
    if target in device.slots or target == device.current:
        return Switch()
    suitable = [o for o in offers if o.target == target and o.suits(device)]
    if suitable:
        return Download(min(suitable, key=lambda o: (o.size, o.package_id)))
    if device.knows(FULL):
        return Build(full)
    return Hold("no_suitable_package")
