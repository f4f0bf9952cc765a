"""Versions: weights that are checked, stored and numbered, never changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.errors import BadVersion
from server.history.events import record
from server.registry.schemas import VersionOut
from server.registry.weights import Checked, explain_mismatch
from server.storage.base import Kept
from server.tables import Model, Version
from shared.errors import BadWeights


def find_version(session: Session, model: Model, number: int) -> Version:
    """The version of that number. Raises BadVersion `not_found`."""
    wanted = (Version.model_id == model.id) & (Version.number == number)
    version = session.scalar(select(Version).where(wanted))
    if version is None:
        raise BadVersion("not_found", f"{model.name} has no version {number}")
    return version


def version_by_digest(session: Session, model: Model, digest: str) -> Version | None:
    """The model's version with these weights, if there is one."""
    wanted = (Version.model_id == model.id) & (Version.weights_digest == digest)
    return session.scalar(select(Version).where(wanted))


def check_schema(wanted: dict[str, Any] | None, checked: Checked, any_dtype: bool = False) -> None:
    """Raise BadWeights `schema_mismatch` where the weights have another schema than `wanted`.

    Without one everything fits. `any_dtype`: only names and shapes must be the same.
    """
    if wanted is None:
        return
    if any_dtype:
        found = {name: form["dtype"] for name, form in checked.schema.items()}
        wanted = {n: {**form, "dtype": found.get(n, form["dtype"])} for n, form in wanted.items()}
    if wanted != checked.schema:
        told = explain_mismatch(wanted, checked.schema)
        raise BadWeights("schema_mismatch", told)


def add_version(
    session: Session,
    model: Model,
    checked: Checked,
    blob: Kept,
    arguments: dict[str, Any] | None,
    source: str,
    parent: Version | None = None,
    approximates: Version | None = None,
    metrics: dict[str, Any] | None = None,
) -> Version:
    """Number and store a version whose weights are in the blob store.

    One whose weights were removed for their age gets them back, and is the same as before.
    `arguments` are those of the architecture that the weights fit. Schema and arguments become the
    model's. Raises BadVersion `exists`.
    """
    known = version_by_digest(session, model, checked.weights_digest)
    if known is not None and known.removed_at is not None:
        return _bring_back(session, known, blob)
    if known is not None:
        raise BadVersion("exists", f"these weights are version {known.number} of {model.name}")
    last = select(func.max(Version.number)).where(Version.model_id == model.id)
    version = Version(
        model_id=model.id,
        number=(session.scalar(last) or 0) + 1,
        weights_digest=checked.weights_digest,
        blob=blob.sha256,
        size_bytes=blob.size,
        schema=checked.schema,
        schema_digest=checked.schema_digest,
        arguments=arguments,
        parent_id=parent and parent.id,
        approximates_id=approximates and approximates.id,
        source=source,
        metrics=metrics or {},
    )
    session.add(version)
    model.schema, model.schema_digest = checked.schema, checked.schema_digest
    if arguments is not None:
        model.arguments = arguments
    session.flush()
    told = {"number": version.number, "weights_digest": version.weights_digest}
    record(session, f"version.{source}", told, model_id=model.id, version_id=version.id)
    return version


def require_weights(version: Version) -> None:
    """Raise BadVersion `removed` where retention has removed the weights."""
    if version.removed_at is not None:
        day = version.removed_at.date()
        raise BadVersion("removed", f"the weights of version {version.number} went on {day}")


def require_not_withdrawn(version: Version) -> None:
    """Raise BadVersion `withdrawn` for one that was taken back."""
    if version.withdrawn_at is not None:
        day = version.withdrawn_at.date()
        raise BadVersion("withdrawn", f"version {version.number} was withdrawn on {day}")


def _bring_back(session: Session, version: Version, blob: Kept) -> Version:
    version.blob, version.size_bytes, version.removed_at = blob.sha256, blob.size, None
    session.flush()
    told = {"number": version.number, "weights_digest": version.weights_digest}
    ids = {"model_id": version.model_id, "version_id": version.id}
    record(session, "version.brought_back", told, **ids)
    return version


def describe_version(session: Session, version: Version, model: Model) -> VersionOut:
    """The version as the API shows it."""
    return VersionOut(
        **{
            name: getattr(version, name)
            for name in VersionOut.model_fields.keys() - {"model", "parent", "approximates"}
        },
        model=model.name,
        parent=_number(session, version.parent_id),
        approximates=_number(session, version.approximates_id),
    )


def _number(session: Session, version_id: int | None) -> int | None:
    return None if version_id is None else session.get_one(Version, version_id).number
