"""Removes packages and weights that nobody needs any more (ADR 0013).

1. look, without a lock, whether there is anything old that nothing needs
2. look again in a write transaction, and say so in the rows: whatever offers a package or starts
   from weights does that in a write transaction, too, so it sees the one or is seen by the other
3. remove the blobs, unless another row names the same bytes, or they were just kept anew for a row
   that is still to come; a crash before leaves blobs without need, which the sweep of orphans finds
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Engine, or_, select
from sqlalchemy.orm import Session

from server import metrics
from server.db import BATCH_ROWS, reading, writing
from server.history.events import record
from server.jobs.queue import OPEN
from server.publish.needs import Edge, Needed, Standing, needed
from server.publish.orphans import MIN_AGE, remove_unnamed
from server.storage.base import BlobStore
from server.tables import (
    STATISTICS_BLOB,
    Assignment,
    DeviceModel,
    Model,
    Package,
    Refinement,
    Rollout,
    Version,
    now,
)
from server.trust.listing import listed_packages

log = logging.getLogger("weft.blobs")


def expire_packages(
    engine: Engine,
    blobs: BlobStore,
    keep_days: int,
    keep_versions: int,
    at: datetime | None = None,
) -> int:
    """Remove what is older than `keep_days` and not needed; 0: nothing. Returns how many blobs.

    `keep_versions`: the newest so many of each model always stay, with all packages to them.
    """
    if keep_days == 0:
        return 0
    moment = at or now()
    before = moment - timedelta(days=keep_days)
    with reading(engine) as session:
        models = session.scalars(select(Model).order_by(Model.id)).all()
        due = [m for m in models if any(_unneeded(session, m, before, keep_versions))]
    removed = 0
    for model in due:
        with writing(engine) as session:
            packages, versions = _unneeded(session, model, before, keep_versions)
            named = [_forget_package(session, row) for row in packages]
            named += [name for row in versions for name in _forget_weights(session, row)]
        removed += remove_unnamed(engine, blobs, named, moment - MIN_AGE)
        metrics.RETENTION_REMOVED.labels("package").inc(len(packages))
        metrics.RETENTION_REMOVED.labels("weights").inc(len(versions))
    return removed


def _unneeded(
    session: Session, model: Model, before: datetime, keep_versions: int
) -> tuple[Sequence[Package], Sequence[Version]]:
    """The old packages and versions of a model that nothing needs; at most BATCH_ROWS of each."""
    old_packages = (
        select(Package)
        .where(Package.model_id == model.id, Package.state == "published")
        .where(Package.created_at < before)
    )
    old_versions = select(Version).where(
        Version.model_id == model.id, Version.removed_at.is_(None), Version.created_at < before
    )
    packages = session.scalars(old_packages.order_by(Package.id)).all()
    versions = session.scalars(old_versions.order_by(Version.id)).all()
    if not packages and not versions:
        return [], []
    keep: Needed = needed(load_standing(session, model, keep_versions))
    gone = [row for row in packages if row.id not in keep.packages][:BATCH_ROWS]
    lost = [row for row in versions if row.id not in keep.versions][:BATCH_ROWS]
    return gone, lost


def load_standing(session: Session, model: Model, keep_versions: int) -> Standing:
    """What there is of a model, and who needs what of it."""
    numbered = select(Version.id).where(Version.model_id == model.id)
    newest = session.scalars(numbered.order_by(Version.number.desc()).limit(keep_versions))
    rollouts = _that_count(session, model)
    came_from = select(Assignment.from_digest).where(
        Assignment.rollout_id.in_([row.id for row in rollouts]), Assignment.from_digest.is_not(None)
    )
    digests = {digest for digest in session.scalars(came_from.distinct()) if digest is not None}
    return Standing(
        edges=_edges(session, model),
        newest=frozenset(newest),
        held=_by_digest(session, model, _held(session, model)),
        targets=frozenset(row.version_id for row in rollouts),
        starts=_by_digest(session, model, digests) | _bases(session, model),
        open_packages=_open_packages(session, model) | _listed(session, model),
    )


def _that_count(session: Session, model: Model) -> Sequence[Rollout]:
    """Rollouts that have something open, that devices may still join, and the newest one."""
    still = select(Assignment.rollout_id).where(
        Assignment.model_id == model.id, Assignment.finished_at.is_(None)
    )
    mine = select(Rollout).where(Rollout.model_id == model.id)
    last = session.scalars(mine.order_by(Rollout.id.desc()).limit(1)).all()
    unfinished = mine.where(or_(Rollout.finished_at.is_(None), Rollout.id.in_(still)))
    return [*last, *session.scalars(unfinished), *_may_be_joined(session, model)]


def _may_be_joined(session: Session, model: Model) -> list[Rollout]:
    """Rollouts that a device may join which enrols, or comes to match a filter, from now on.

    A device joins the newest one that it matches. So one hides older ones with the same filter,
    and all older ones where it takes every device; not before it has finished, for until then it
    may be aborted, which gives devices back.
    """
    started = select(Rollout).where(
        Rollout.model_id == model.id, Rollout.started_at.is_not(None), Rollout.state != "aborted"
    )
    newest_first = started.order_by(Rollout.started_at.desc(), Rollout.id.desc())
    found, taken = [], set[tuple[str | None, int | None]]()
    for rollout in session.scalars(newest_first):
        whom = (rollout.filter, rollout.rolls_back_id)
        found += [rollout] if whom not in taken else []
        if rollout.state == "finished":
            taken.add(whom)
            if rollout.takes_every_device:
                break
    return found


def _edges(session: Session, model: Model) -> list[Edge]:
    query = select(Package.id, Package.base_version_id, Package.target_version_id)
    mine = query.where(Package.model_id == model.id, Package.state == "published")
    return [Edge(*row) for row in session.execute(mine)]


def _held(session: Session, model: Model) -> set[str]:
    """Digests of all weights that devices hold, in use or not."""
    query = select(DeviceModel.weights_digest, DeviceModel.slots)
    found: set[str] = set()
    for in_use, slots in session.execute(query.where(DeviceModel.model_name == model.name)):
        found.update(slots)
        if in_use is not None:
            found.add(in_use)
    return found


def _by_digest(session: Session, model: Model, digests: set[str]) -> frozenset[int]:
    query = select(Version.id, Version.weights_digest).where(Version.model_id == model.id)
    return frozenset(id_ for id_, digest in session.execute(query) if digest in digests)


def _bases(session: Session, model: Model) -> frozenset[int]:
    """What open refinements start from, with the parents of that."""
    query = (
        select(Version.id, Version.parent_id, Version.approximates_id)
        .join(Refinement, Refinement.base_version_id == Version.id)
        .where(Refinement.model_id == model.id, Refinement.state.in_(OPEN))
    )
    return frozenset(id_ for row in session.execute(query) for id_ in row if id_ is not None)


def _open_packages(session: Session, model: Model) -> frozenset[int]:
    query = select(Assignment.package_id, Assignment.chain).where(
        Assignment.model_id == model.id, Assignment.finished_at.is_(None)
    )
    rows = session.execute(query).all()
    single = {package for package, _ in rows if package is not None}
    return frozenset(single.union(*(chain or () for _, chain in rows)))


def _listed(session: Session, model: Model) -> frozenset[int]:
    """What devices are told of in signed metadata."""
    query = select(Package.id).where(Package.sha256.in_(listed_packages(session, model)))
    return frozenset(session.scalars(query))


def _forget_package(session: Session, row: Package) -> str:
    """Say that a package is removed; the name of its blob."""
    row.state, row.removed_at = "removed", now()
    told = {"method": row.method, "bytes": row.size_bytes, "sha256": row.sha256}
    ids = {"model_id": row.model_id, "version_id": row.target_version_id, "package_id": row.id}
    record(session, "package.removed", told, **ids)
    log.info("the package %d is not needed any more", row.id)
    return row.sha256


def _forget_weights(session: Session, row: Version) -> list[str]:
    """Say that a version's weights are removed; the names of their blobs."""
    row.removed_at = now()
    told = {"number": row.number, "weights_digest": row.weights_digest, "bytes": row.size_bytes}
    record(session, "version.removed", told, model_id=row.model_id, version_id=row.id)
    log.info("the weights of version %d are not needed any more", row.id)
    metrics_kept = dict(row.metrics)
    statistics = metrics_kept.pop(STATISTICS_BLOB, None)
    row.metrics = metrics_kept
    return [row.blob, statistics] if statistics else [row.blob]
