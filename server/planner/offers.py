"""Reads what the planner needs to know from the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from server.planner.abilities import Abilities, Needs
from server.planner.paths import Offer, Packages
from server.planner.plan import Download, Holding, Plan, Target, Terms, Wanted, plan
from server.tables import (
    Assignment,
    Device,
    DeviceModel,
    Json,
    Package,
    TrustMetadata,
    Version,
)
from shared.metadata import TARGETS

#: How long the packages of a model are remembered, in seconds.
REMEMBERED_SECONDS = 2.0

_base = aliased(Version)
#: Of a package joined with its target and, where it has one, its base: retention took nothing, and
#: the target is released.
_USABLE = (
    Package.state == "published",
    Version.removed_at.is_(None),
    _base.removed_at.is_(None),
    # Devices refuse what leads to anything else, so chains pass through released versions only.
    Version.released_at.is_not(None),
    Version.withdrawn_at.is_(None),
)


#: Id of the package that came last, and version of the list of released versions.
_Newest: TypeAlias = tuple[int | None, int | None]


class Published:
    """The published packages of models, remembered for a moment.

    A fleet polls for the same version again and again, and thousands of packages are much to read
    for each poll. A package that was added is seen at once, and so is a version that was released:
    what is remembered counts only while the newest of both are the same. One that was removed
    meanwhile is noticed by `Planning`, which looks again at those that it is about to offer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[int, tuple[_Newest, float, Packages]] = {}

    def of(self, session: Session, model_id: int) -> Packages:
        """The packages of a model."""
        newest = _newest(session, model_id)
        known = self._known.get(model_id)
        if known and known[0] == newest and self._clock() < known[1]:
            return known[2]
        packages = load_packages(session, model_id)
        self._known[model_id] = (newest, self._clock() + REMEMBERED_SECONDS, packages)
        return packages

    def forget(self, model_id: int) -> None:
        """Read the model's packages anew when they are asked for next."""
        self._known.pop(model_id, None)


@dataclass(frozen=True)
class Planned:
    """A plan. `unknown`: digest of the weights in use, where they are no version of the model."""

    plan: Plan
    unknown: str | None = None


@dataclass(frozen=True)
class Planning:
    """Plans updates for devices. `budget`: bytes of one update where a device has none; 0: any."""

    published: Published
    budget: int = 0
    unbuildable: Callable[[], Collection[Wanted]] = frozenset

    def plan_for(
        self,
        session: Session,
        device: Device,
        held: DeviceModel,
        version: Version,
        assignment: Assignment,
    ) -> Planned:
        """The plan that takes a device to `version`."""
        budget = self.budget if device.update_budget is None else device.update_budget
        terms = Terms(budget, _standing(assignment), self.unbuildable())
        known = held_versions(session, held, version.model_id)
        bases = {v.weights_digest: v.id for v in known if may_start(v, version)}
        holding = holding_of(device, held)
        target = Target(
            version.id,
            version.weights_digest,
            bases,
            is_removed=version.removed_at is not None,
            fits=held.model_name not in holding.abilities.in_place or _fits(held, known, version),
        )
        while True:
            packages = self.published.of(session, version.model_id)
            found = plan(holding, target, packages, terms)
            if not isinstance(found, Download) or _still_there(session, found):
                return Planned(found, _unknown(held, known))
            self.published.forget(version.model_id)


def _newest(session: Session, model_id: int) -> _Newest:
    package = select(func.max(Package.id)).where(Package.model_id == model_id)
    targets = select(func.max(TrustMetadata.version)).where(
        TrustMetadata.model_id == model_id, TrustMetadata.role == TARGETS
    )
    last, listed = session.execute(
        select(package.scalar_subquery(), targets.scalar_subquery())
    ).one()
    return last, listed


def load_packages(session: Session, model_id: int) -> Packages:
    """The published packages of a model to released versions.

    Without those from or to weights that were removed.
    """
    ends = (_base.weights_digest, Version.weights_digest)
    query = (
        select(Package.id, *ends, Package.method, Package.needs, Package.size_bytes, Package.sha256)
        .join(Version, Package.target_version_id == Version.id)
        .outerjoin(_base, Package.base_version_id == _base.id)
        .where(Package.model_id == model_id, *_USABLE)
    )
    return Packages(
        Offer(id_, start, end, _needs(method, needs), size, sha256)
        for id_, start, end, method, needs, size, sha256 in session.execute(query)
    )


def held_versions(session: Session, held: DeviceModel, model_id: int) -> list[Version]:
    """The versions of the model whose weights the device holds."""
    query = select(Version).where(
        Version.model_id == model_id, Version.weights_digest.in_(_digests(held))
    )
    return list(session.scalars(query))


def holding_of(device: Device, held: DeviceModel) -> Holding:
    """What the device holds of one model and can decode."""
    abilities = Abilities.of(device.capabilities)
    return Holding(held.weights_digest, frozenset(held.slots), abilities)


def _digests(held: DeviceModel) -> set[str]:
    return {*held.slots, held.weights_digest} if held.weights_digest else set(held.slots)


def may_start(base: Version, target: Version) -> bool:
    """Whether an `xor` can be made from these weights."""
    return base.removed_at is None and base.schema_digest == target.schema_digest


def _fits(held: DeviceModel, known: list[Version], target: Version) -> bool:
    """Whether the weights in use have the same tensors; of unknown ones nobody knows."""
    in_use = [v for v in known if v.weights_digest == held.weights_digest]
    return all(v.schema_digest == target.schema_digest for v in in_use)


def _unknown(held: DeviceModel, known: list[Version]) -> str | None:
    in_use = held.weights_digest
    return None if in_use in {v.weights_digest for v in known} else in_use


def _standing(assignment: Assignment) -> tuple[int, ...]:
    """Ids of the packages that were offered before."""
    if assignment.chain:
        return tuple(assignment.chain)
    return () if assignment.package_id is None else (assignment.package_id,)


def _needs(method: str, noted: Json | None) -> Needs:
    known = noted or {}
    return Needs(method, **{**known, "dtypes": frozenset(known.get("dtypes", ()))})


def _still_there(session: Session, found: Download) -> bool:
    """Whether all packages of a plan are published, and lead between weights that are there."""
    ids = [offer.package_id for offer in found.packages]
    query = (
        select(func.count(Package.id))
        .join(Version, Package.target_version_id == Version.id)
        .outerjoin(_base, Package.base_version_id == _base.id)
        .where(Package.id.in_(ids), *_USABLE)
    )
    return session.scalar(query) == len(ids)
