"""Packages between two versions that exist, built when somebody asks.

The planner asks for `full` (a device whose weights nobody knows) or `xor`, operators for any
method. A lossless package leads to the target itself. A lossy one never does: what it decodes to
is a version of its own, which stands for the target (`approximates`).
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server.db import reading, writing
from server.errors import BadUpdate
from server.packaging.encode import BuildReport, build_package
from server.publish.publishing import Stored, metrics_of, publish_package, publish_version, store
from server.storage.base import BlobStore
from server.tables import Model, Package, Version
from shared import methods
from shared.methods.lossless import Lossless

#: Held while a package is built: a build can take much memory and all cores.
one_build = threading.Lock()


@dataclass(frozen=True)
class Order:
    """A package to build: ids of versions, and how."""

    target_id: int
    base_id: int | None
    method: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Built:
    """What was built and is durable in the store, without any row yet."""

    order: Order
    report: BuildReport
    stored: Stored


def lossless_package(
    engine: Engine, blobs: BlobStore, target_id: int, base_id: int | None = None
) -> int:
    """The id of a lossless package to `target_id`: `xor` from `base_id`, or `full` without one.

    It is built where there is none yet. Raises BlobError, NoSpace.
    """
    order = Order(target_id, base_id, "full" if base_id is None else "xor", {})
    with one_build:
        with reading(engine) as session:
            known = find_package(session, order)
            if known is not None:
                return known.id
        built = build(engine, blobs, order)
        with writing(engine) as session:
            return publish(session, built).id


def find_package(session: Session, order: Order) -> Package | None:
    """The published package that this order would build, if there is one."""
    query = select(Package).where(
        Package.target_version_id == order.target_id,
        Package.method == order.method,
        Package.state == "published",
    )
    if order.base_id is None:
        return session.scalar(query.where(Package.base_version_id.is_(None)))
    return session.scalar(query.where(Package.base_version_id == order.base_id))


def build(engine: Engine, blobs: BlobStore, order: Order) -> Built:
    """Build the package, decode it again, and put the files into the store.

    Raises BadUpdate `other_model`, BadMethod, BadWeights, BlobError, NoSpace.
    """
    model, base, target = _rows(engine, order)
    lossless = isinstance(methods.get(order.method), Lossless)
    with ExitStack() as files:
        scratch = Path(files.enter_context(tempfile.TemporaryDirectory()))
        package, decoded = scratch / "package", scratch / "decoded"
        report = build_package(
            files.enter_context(blobs.local(base.blob)) if base else None,
            files.enter_context(blobs.local(target.blob)),
            order.method,
            order.options,
            package,
            model.name,
            decoded,
        )
        stored = store(blobs, model, target.arguments, package, None if lossless else decoded)
        return Built(order, report, stored)


def _rows(engine: Engine, order: Order) -> tuple[Model, Version | None, Version]:
    with reading(engine) as session:
        target = session.get_one(Version, order.target_id)
        base = session.get_one(Version, order.base_id) if order.base_id is not None else None
        if base is not None and base.model_id != target.model_id:
            raise BadUpdate("other_model", "base and target are versions of different models")
        return session.get_one(Model, target.model_id), base, target


def publish(session: Session, built: Built) -> Package:
    """Rows and events of what was built, in the caller's transaction."""
    order = built.order
    target = session.get_one(Version, order.target_id)
    # `full` names no base, whoever asked: its package serves every device.
    needs_base = methods.get(order.method).needs_base
    base = session.get_one(Version, order.base_id) if order.base_id and needs_base else None
    if built.stored.checked is not None:
        assert base is not None
        model = session.get_one(Model, target.model_id)
        target = publish_version(session, model, built.stored, "encoded", base, target)
    return publish_package(
        session,
        built.stored.package,
        base,
        target,
        order.method,
        order.options,
        built.report.learnable_count,
        metrics_of(built.report),
    )
