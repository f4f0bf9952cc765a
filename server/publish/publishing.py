"""Versions and packages into the registry, once their bytes are durable.

The order is always: check the files, put them into the store, then one transaction for all rows and
events. A crash in between leaves a blob that nobody names (see `orphans`), never a row that names
nothing. Of two processes that publish the same, one is second, and finds the other's rows: write
transactions follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.history.events import record
from server.packaging.encode import BuildReport
from server.registry.models import learnable_of
from server.registry.versions import add_version, version_by_digest
from server.registry.weights import Checked, check
from server.storage.base import BlobStore, Kept
from server.tables import Json, Model, Package, Version
from shared import coding, methods
from shared.errors import BadResult
from shared.package import FORMAT, GOLDEN_FORMAT, PackageReader

#: How tensors are sent whose elements a device computes, so that it must know their dtype.
COMPUTED = frozenset({"direct", "factors"})


@dataclass(frozen=True)
class Stored:
    """Files that are durable in the store: a package, and new weights where it leads to such."""

    package: Kept
    weights: Kept | None = None
    checked: Checked | None = None
    arguments: dict[str, Any] | None = None


def store(
    blobs: BlobStore,
    model: Model,
    arguments: dict[str, Any] | None,
    package: Path,
    decoded: Path | None,
) -> Stored:
    """Put a package, and the weights that it decodes to, into the store.

    `arguments` are those of the architecture that the weights fit.
    Raises BadResult `mismatch` where the weights are not what the package promises, BadWeights
    where they are unsound, NoSpace.
    """
    if decoded is None:
        return Stored(blobs.put(package))
    checked = check(decoded, learnable_of(model, arguments), model.buffers)
    with PackageReader(package) as reader:
        promised = reader.result_digest.hex()
    if checked.weights_digest != promised:
        found = checked.weights_digest
        raise BadResult("mismatch", f"decoded {found}, the package promises {promised}")
    return Stored(blobs.put(package), blobs.put(decoded), checked, arguments)


def publish_version(
    session: Session,
    model: Model,
    stored: Stored,
    source: str,
    parent: Version,
    approximates: Version | None = None,
    metrics: dict[str, Any] | None = None,
) -> Version:
    """The version of the decoded weights; the one that is there already if the model has them."""
    assert stored.checked is not None
    assert stored.weights is not None
    known = version_by_digest(session, model, stored.checked.weights_digest)
    if known is not None and known.removed_at is None:
        return known
    return add_version(
        session,
        model,
        stored.checked,
        stored.weights,
        stored.arguments,
        source,
        parent,
        approximates,
        metrics,
    )


def publish_package(
    session: Session,
    package: Kept,
    base: Version | None,
    target: Version,
    method: str,
    options: dict[str, Any],
    learnable_count: int | None,
    metrics: dict[str, Any],
    **ids: int,
) -> Package:
    """The row of a stored package; the one that is there already if these bytes are known.

    One that retention has removed is published again: its bytes are back in the store.
    """
    row = session.scalar(select(Package).where(Package.sha256 == package.sha256))
    if row is None:
        row = Package(
            model_id=target.model_id,
            base_version_id=base and base.id,
            target_version_id=target.id,
            method=method,
            options=options,
            needs=needs_of(method, metrics, target.schema),
            sha256=package.sha256,
            size_bytes=package.size,
            learnable_count=learnable_count,
            metrics=metrics,
        )
        session.add(row)
    elif row.state == "published":
        return row
    row.state, row.removed_at = "published", None
    session.flush()
    told = {"method": method, "size_bytes": package.size, "sha256": package.sha256}
    ids |= {"model_id": target.model_id, "version_id": target.id, "package_id": row.id}
    record(session, "package.published", told, **ids)
    return row


def metrics_of(report: BuildReport) -> dict[str, Any]:
    """What a package's row keeps of its build."""
    tensors = {name: asdict(tensor) for name, tensor in report.tensors.items()}
    golden = {"golden": report.golden} if report.golden else {}
    told = {"container_bytes": report.container_bytes, "coder": report.coder}
    return {**told, "tensors": tensors, **golden}


def needs_of(method: str, metrics: Mapping[str, Any], schema: Mapping[str, Json]) -> Json:
    """What a device must know to decode a package that this server has just built.

    `metrics` are those of the build: `coder`, `tensors`, name -> {"plan", ...}, and `golden`, if
    there are such samples; `schema` is that of the result.
    """
    tensors = metrics.get("tensors", {})
    format_ = GOLDEN_FORMAT if metrics.get("golden") else FORMAT
    computed = {schema[name]["dtype"] for name, sent in tensors.items() if sent["plan"] in COMPUTED}
    version = methods.get(method).version
    coder = metrics.get("coder", coding.DEFAULT_CODER)
    return {"version": version, "format": format_, "coder": coder, "dtypes": sorted(computed)}
