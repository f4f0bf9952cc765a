"""Packages between two versions that exist, built when somebody asks.

The planner asks for `full` (a device whose weights nobody knows) or `xor`, operators for any
method. A lossless package leads to the target itself. A lossy one never does: what it decodes to
is a version of its own, which stands for the target (`approximates`).
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server import metrics
from server.db import reading, writing
from server.errors import BadUpdate
from server.packaging.encode import BuildReport, MakeGolden, build_package
from server.publish.accuracy import Gate, Samples, Subject
from server.publish.publishing import Stored, metrics_of, publish_package, publish_version, store
from server.registry.versions import require_weights
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
    figures: dict[str, Any] = field(default_factory=dict)
    """What was measured on the decoded weights; empty: nothing."""


def lossless_package(
    engine: Engine, blobs: BlobStore, target_id: int, base_id: int | None = None
) -> int:
    """The id of a lossless package to `target_id`: `xor` from `base_id`, or `full` without one.

    It is built where there is none yet; where another process does the same, both end with the
    same one. Raises BadVersion `removed`, BlobError, NoSpace.
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


def build(
    engine: Engine,
    blobs: BlobStore,
    order: Order,
    gate: Gate | None = None,
    golden: Samples | None = None,
) -> Built:
    """Build the package, decode it again, judge the result, and put the files into the store.

    What the gate refuses never comes into the store. Raises BadUpdate `other_model`,
    `below_accuracy`, `not_measurable`, `no_golden`, BadVersion `removed`, BadMethod,
    BadWeights, BadDataset, BlobError, NoSpace.
    """
    model, base, target = _rows(engine, order)
    subject = _subject(model, target) if gate or golden else None
    lossless = isinstance(methods.get(order.method), Lossless)
    with metrics.timing_build(order.method), ExitStack() as files:
        scratch = Path(files.enter_context(tempfile.TemporaryDirectory()))
        package, decoded = scratch / "package", scratch / "decoded"
        wanted = files.enter_context(blobs.local(target.blob))
        report = build_package(
            files.enter_context(blobs.local(base.blob)) if base else None,
            wanted,
            order.method,
            order.options,
            package,
            model.name,
            decoded,
            _expected(golden, subject) if golden and subject else None,
        )
        figures = _measured(gate, subject, wanted, decoded) if gate and subject else {}
        stored = store(blobs, model, target.arguments, package, None if lossless else decoded)
        return Built(order, report, stored, figures)


def _measured(gate: Gate, subject: Subject, target: Path, decoded: Path) -> dict[str, Any]:
    # Imports torch: a second and 150 MB that a server need not spend before something is measured.
    from server.publish.measuring import measure

    return measure(gate, subject, target, decoded)


def _expected(golden: Samples, subject: Subject) -> MakeGolden:
    from server.publish.measuring import expected  # torch, as above

    return expected(golden, subject)


def _subject(model: Model, target: Version) -> Subject:
    if model.architecture is None:
        raise BadUpdate("not_measurable", f"the model {model.name} has no architecture")
    return Subject(model.architecture, target.arguments or {})


def _rows(engine: Engine, order: Order) -> tuple[Model, Version | None, Version]:
    with reading(engine) as session:
        target = session.get_one(Version, order.target_id)
        base = session.get_one(Version, order.base_id) if order.base_id is not None else None
        if base is not None and base.model_id != target.model_id:
            raise BadUpdate("other_model", "base and target are versions of different models")
        for version in (base, target):
            if version is not None:
                require_weights(version)
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
        kept = _kept(built.figures)
        target = publish_version(session, model, built.stored, "encoded", base, target, kept)
    return publish_package(
        session,
        built.stored.package,
        base,
        target,
        order.method,
        order.options,
        built.report.learnable_count,
        metrics_of(built.report) | built.figures,
    )


def _kept(figures: dict[str, Any]) -> dict[str, Any]:
    """What the version's row keeps of what was measured."""
    if not figures:
        return {}
    return {"accuracy": figures["accuracy_after"], **figures}
