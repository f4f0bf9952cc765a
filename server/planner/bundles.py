"""What goes into a bundle: ways to a version for devices that no network reaches.

Each way starts from one version that such a device may hold, or from nothing. It takes the cheapest
published packages from there, and where there are none, a lossless one is built. A `full` package
never stands in for a way that was asked for: it is there where it was asked for itself.

The signed metadata of a bundle list its packages and nothing else, and hold longer than those that
devices fetch, for it may take weeks until somebody carries it there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server.db import reading, writing
from server.errors import BadUpdate
from server.planner.offers import load_packages, may_start
from server.planner.paths import Packages, offered
from server.planner.plan import Wanted
from server.publish.on_demand import lossless_package
from server.publish.release import Release
from server.registry.models import find_model
from server.registry.versions import find_version, require_weights
from server.storage.base import BlobStore
from server.tables import Package, Version
from server.trust.repository import Trust
from shared.bundle import MAX_PACKAGE_BYTES, VALID_DAYS, Bundle, Way
from shared.wire import MAX_CHAIN


@dataclass(frozen=True)
class Order:
    """Ways to a version, by its number: from each of `bases` (numbers), and `full` from nothing.

    `chain`: most packages of one way; `valid_days`: how long its metadata hold.
    """

    model: str
    version: int
    bases: Collection[int] = ()
    full: bool = False
    chain: int = MAX_CHAIN
    valid_days: int = VALID_DAYS


@dataclass(frozen=True)
class Made:
    """A bundle without its packages, which the store has."""

    bundle: Bundle
    metadata: bytes


def make_bundle(
    engine: Engine, blobs: BlobStore, order: Order, trust: Trust, release: Release
) -> Made:
    """The bundle's manifest and metadata; packages that are missing are built and published.

    Raises BadModel and BadVersion `not_found`, BadVersion `removed`, BadUpdate `no_way`, BadTrust
    `ends_sooner`, BlobError, NoSpace, and what `release` raises.
    """
    _have_released(engine, order, release)
    while True:
        with reading(engine) as session:
            found = _plan(session, order)
        if isinstance(found, Wanted):
            lossless_package(engine, blobs, found.version_id, found.base_id)
            continue
        with writing(engine) as session:
            if _plan(session, order) == found:  # else something was removed meanwhile
                return _signed(session, order, found, trust)


def _have_released(engine: Engine, order: Order, release: Release) -> None:
    with writing(engine) as session:
        model = find_model(session, order.model)
        target = find_version(session, model, order.version)
        require_weights(target)
        release(session, target)


def _signed(session: Session, order: Order, ways: list[Way], trust: Trust) -> Made:
    model = find_model(session, order.model)
    target = find_version(session, model, order.version)
    named = {offer.sha256 for way in ways for offer in way.packages}
    packages = list(session.scalars(select(Package).where(Package.sha256.in_(named))))
    metadata = trust.bundle_metadata(session, model, packages, order.valid_days)
    bundle = Bundle(
        model=model.name,
        version=target.number,
        weights_digest=target.weights_digest,
        metadata_bytes=len(metadata),
        ways=ways,
    )
    return Made(bundle, metadata)


def _plan(session: Session, order: Order) -> list[Way] | Wanted:
    """The ways of the bundle, or the first package that it lacks."""
    model = find_model(session, order.model)
    target = find_version(session, model, order.version)
    packages = load_packages(session, model.id)
    ways: list[Way] = []
    starts = [find_version(session, model, number) for number in sorted(set(order.bases))]
    for base in [*starts, *([None] if order.full else [])]:
        way = _way(packages, base, target, order.chain)
        if isinstance(way, Wanted):
            return way
        ways.append(way)
    return ways


def _way(packages: Packages, base: Version | None, target: Version, longest: int) -> Way | Wanted:
    if base is not None and base.weights_digest == target.weights_digest:
        raise BadUpdate("no_way", f"a device with version {base.number} needs no package")
    start = base.weights_digest if base else None
    path = packages.cheapest({start}, target.weights_digest, longest, lambda _: True)
    if path is None:
        if base is None:
            return Wanted(target.id)
        if may_start(base, target):
            return Wanted(target.id, base.id)
        told = f"no packages lead from version {base.number} to {target.number}"
        raise BadUpdate("no_way", f"{told}, and a lossless one cannot be made")
    if any(offer.size > MAX_PACKAGE_BYTES for offer in path):
        raise BadUpdate("no_way", f"a bundle takes packages of up to {MAX_PACKAGE_BYTES} bytes")
    return Way(base_version=base.number if base else None, packages=[offered(o) for o in path])
