"""What is listed: released versions in `targets`, packages that are offered in `packages`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, TargetFile, Targets

from server.errors import BadVersion
from server.history.events import record
from server.tables import Assignment, Model, Package, Rollout, TrustMetadata, Version, now
from shared.metadata import PACKAGES, package_path, version_path
from shared.tensors import TensorSpec

#: Newest released versions of a model that stay listed, beside those that rollouts need.
KEPT_VERSIONS: Final = 8

#: Most versions listed for the sake of rollouts that are done, where each has another filter.
MOST_VERSIONS: Final = 32

#: Packages of a model that stay listed although no device is in the middle of an update by them.
KEPT_PACKAGES: Final = 4

#: Most packages listed, that metadata stay a few kilobytes: the newest stay.
MOST_PACKAGES: Final = 32


def version_target(version: Version) -> TargetFile:
    """A released version: the digest and length of the stream that its weights digest is over."""
    custom = {"custom": {"schema": version.schema_digest}}
    length = _stream_length(version.schema)
    path = version_path(version.number)
    return TargetFile(length, {"sha256": version.weights_digest}, path, custom)


def package_target(package: Package) -> TargetFile:
    """A package: its file, and what it leads from and to."""
    base = package.base_version
    custom = {
        "base": base.weights_digest if base else None,
        "result": package.target_version.weights_digest,
        "method": package.method,
    }
    path = package_path(package.sha256)
    return TargetFile(package.size_bytes, {"sha256": package.sha256}, path, {"custom": custom})


def _stream_length(schema: Mapping[str, Any]) -> int:
    specs = [TensorSpec(n, form["dtype"], tuple(form["shape"])) for n, form in schema.items()]
    return sum(len(spec.header()) + spec.nbytes for spec in specs)


def versions_to_list(
    session: Session, model: Model, asked: Sequence[Version], keep: int = KEPT_VERSIONS
) -> list[Version]:
    """The newest released versions, those that rollouts need, and `asked`."""
    released = Version.released_at.is_not(None) & Version.withdrawn_at.is_(None)
    query = select(Version).where(Version.model_id == model.id, released)
    found = {version.number: version for version in session.scalars(query)}
    found |= {version.number: version for version in asked}
    under_way, joinable = _needed_by_rollouts(session, model)
    chosen = set(sorted(found, reverse=True)[:keep]) | {version.number for version in asked}
    chosen |= {number for number, version in found.items() if version.id in under_way}
    others = [n for n, v in sorted(found.items(), reverse=True) if v.id in joinable - under_way]
    chosen.update(others[: max(MOST_VERSIONS - len(chosen), 0)])
    return [found[number] for number in sorted(chosen)]


def _needed_by_rollouts(session: Session, model: Model) -> tuple[set[int], set[int]]:
    """Ids of what rollouts lead to that are under way, and of what devices may still join.

    A device that comes later joins the newest that it matches, though it be a year old: of those
    with the same filter that is the last one.
    """
    mine = (Rollout.model_id == model.id) & (Rollout.state != "aborted")
    targets = select(Rollout.version_id).where(mine)
    joined = select(func.max(Rollout.id)).where(mine, Rollout.rolls_back_id.is_(None))
    under_way = session.scalars(targets.where(Rollout.finished_at.is_(None)))
    joinable = session.scalars(targets.where(Rollout.id.in_(joined.group_by(Rollout.filter))))
    return set(under_way), set(joinable)


def listed_packages(session: Session, model: Model) -> frozenset[str]:
    """SHA-256 of the packages that the metadata in use list."""
    query = select(TrustMetadata.content).where(
        TrustMetadata.model_id == model.id, TrustMetadata.role == PACKAGES
    )
    content = session.scalar(query.order_by(TrustMetadata.version.desc()).limit(1))
    paths = json.loads(content)["signed"]["targets"] if content else ()
    return frozenset(path.partition("/")[2] for path in paths)


def packages_to_list(
    session: Session, model: Model, listed: Targets | None, asked: Iterable[Package]
) -> list[TargetFile]:
    """`asked`, and of those listed now what open assignments refer to and the newest others.

    Only packages that are there, and that lead to a released version.
    """
    wanted = {package.sha256 for package in asked}
    known = wanted | {path.partition("/")[2] for path in (listed.targets if listed else ())}
    query = (
        select(Package)
        .join(Version, Package.target_version_id == Version.id)
        .where(
            Package.model_id == model.id,
            Package.sha256.in_(known),
            Package.state == "published",
            Version.released_at.is_not(None),
            Version.withdrawn_at.is_(None),
        )
        .order_by(Package.id.desc())
    )
    found = list(session.scalars(query))
    in_hand = _in_hand(session, model)
    first = [p for p in found if p.sha256 in wanted]
    needed = [p for p in found if p.sha256 not in wanted and p.id in in_hand]
    others = [p for p in found if p.sha256 not in wanted and p.id not in in_hand]
    rest = max(KEPT_PACKAGES - len(first) - len(needed), 0)
    chosen = (first + needed)[: max(MOST_PACKAGES, len(first))] + others[:rest]
    return [package_target(package) for package in chosen]


def _in_hand(session: Session, model: Model) -> set[int]:
    """The packages that open assignments of the model refer to."""
    chain = cast(Assignment.chain, Text)  # PostgreSQL does not compare JSON
    query = select(Assignment.package_id, chain).where(
        Assignment.model_id == model.id,
        Assignment.finished_at.is_(None),
        Assignment.package_id.is_not(None),
    )
    found: set[int] = set()
    for package_id, ids in session.execute(query.distinct()):
        found.update(json.loads(ids) if ids else (package_id or 0,))
    return found


def require_released(packages: Iterable[Package]) -> None:
    """Raise BadVersion `not_released`, `withdrawn` where one leads to such a version."""
    for package in packages:
        version = package.target_version
        if version.withdrawn_at is not None:
            raise BadVersion("withdrawn", f"version {version.number} was withdrawn")
        if not version.is_released:
            raise BadVersion("not_released", f"version {version.number} is not released")


def withdrawn_paths(session: Session, model: Model) -> set[str]:
    """The paths of the model's versions that were taken back."""
    gone = Version.withdrawn_at.is_not(None)
    query = select(Version.number).where(Version.model_id == model.id, gone)
    return set(map(version_path, session.scalars(query)))


def note_listed(session: Session, model: Model, targets: Metadata[Targets] | None) -> None:
    """Let the rows of the model's versions say what `targets` lists, and history tell of it."""
    paths = targets.signed.targets if targets else {}
    for version in session.scalars(select(Version).where(Version.model_id == model.id)):
        is_listed = version_path(version.number) in paths
        if is_listed == (version.released_at is not None):
            continue
        version.released_at = now() if is_listed else None
        if version.withdrawn_at is not None:
            continue
        kind = "version.released" if is_listed else "version.unlisted"
        told = {"number": version.number, "weights_digest": version.weights_digest}
        record(session, kind, told, model_id=version.model_id, version_id=version.id)
