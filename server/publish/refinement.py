"""The server's side of a refinement: what the queue is handed as its `Work`."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from server.db import reading, writing
from server.errors import ServerError
from server.jobs.queue import fail, is_ours, record_event
from server.publish import spec
from server.publish.budget.curve import Curve, read_curve
from server.publish.publishing import Stored, publish_package, publish_version, store
from server.publish.spec import Result, Task
from server.refine.recipe import Recipe
from server.refine.spec import JobSpec
from server.registry.datasets import address_of
from server.settings import Settings
from server.storage.base import BlobStore
from server.tables import STATISTICS_BLOB, Refinement, now
from shared import methods
from shared.errors import NoSpace


class RefinementWork:
    """Prepares the folder of a refinement, and publishes what its child made there."""

    def __init__(self, settings: Settings, engine: Engine, blobs: BlobStore) -> None:
        self._settings, self._engine, self._blobs = settings, engine, blobs

    def prepare(self, refinement_id: int, folder: Path) -> list[str]:
        """Write `spec.json` and `base.safetensors`, and return the child's command line."""
        with reading(self._engine) as session:
            row = session.get_one(Refinement, refinement_id)
            task, base = self._task(row, folder), row.base_version
        try:
            self._fetch(base.blob, task.job.base)
            if task.job.statistics is not None:
                self._fetch(base.metrics[STATISTICS_BLOB], task.job.statistics)
            spec.write_durably(folder / spec.SPEC, task.model_dump_json(indent=1))
        except OSError as error:
            code = "no_space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "unusable"
            raise NoSpace(code, f"the refinement's folder: {error.strerror}") from error
        return [sys.executable, "-m", "server.publish.pipeline", str(folder)]

    def _fetch(self, blob: str, place: Path) -> None:
        if not place.exists():
            with self._blobs.local(blob) as path:
                _link_or_copy(path, place)

    def _task(self, row: Refinement, folder: Path) -> Task:
        evaluation, roots = row.evaluation_dataset, self._settings.dataset_roots
        unfolds = STATISTICS_BLOB in row.base_version.metrics
        job = JobSpec(
            architecture=row.model.architecture or "",
            arguments=row.base_version.arguments or {},
            target_arguments=target_arguments(row),
            model_modules=self._settings.model_modules,
            base=(folder / spec.BASE).absolute(),
            statistics=(folder / spec.STATISTICS).absolute() if unfolds else None,
            dataset=address_of(row.dataset, roots),
            evaluation_dataset=address_of(evaluation, roots) if evaluation else None,
            fingerprints={d.uri: d.fingerprint for d in (row.dataset, evaluation) if d},
            method=row.method["id"],
            options=row.method["options"],
            recipe=Recipe.model_validate(row.recipe),
        )
        return Task(model=row.model.name, job=job)

    def finish(self, refinement_id: int, folder: Path) -> None:
        """Publish the target version and its package, and end the refinement with success.

        Where `auto` found no package that is what was asked for, end it with the reason.
        """
        curve = read_curve(folder)
        if curve is not None and self._ends_with(refinement_id, curve):
            return
        result = _read_result(folder)
        with reading(self._engine) as session:
            row = session.get_one(Refinement, refinement_id)
            model, arguments = row.model, target_arguments(row)
        places = folder / spec.PACKAGE, folder / spec.DECODED
        stored = store(self._blobs, model, arguments, *places)
        unfolded = folder / spec.UNFOLDED
        kept = {STATISTICS_BLOB: self._blobs.put(unfolded).sha256} if unfolded.exists() else {}
        with writing(self._engine) as session:
            row = session.get_one(Refinement, refinement_id, with_for_update=True)
            if is_ours(row):
                _publish(session, row, stored, result, kept)

    def _ends_with(self, refinement_id: int, curve: Curve) -> bool:
        """Keep the curve, and end the refinement where that holds a failure."""
        with writing(self._engine) as session:
            row = session.get_one(Refinement, refinement_id, with_for_update=True)
            if is_ours(row):
                row.curve = curve.model_dump(mode="json")
        if curve.failure is None:
            return False
        fail(self._engine, refinement_id, curve.failure.model_dump())
        return True


def target_arguments(row: Refinement) -> dict[str, Any]:
    """All arguments of the architecture of what comes out of a refinement."""
    return {**(row.base_version.arguments or {}), **(row.target_arguments or {})}


def _publish(
    session: Session, row: Refinement, stored: Stored, result: Result, kept: dict[str, str]
) -> None:
    accuracy = {"accuracy": result.metrics["accuracy_after"]}
    metrics: dict[str, Any] = accuracy | result.metrics | kept
    version = publish_version(
        session, row.model, stored, "refined", row.base_version, metrics=metrics
    )
    method, options = row.method["id"], row.method["options"]
    if result.method is not None:  # `auto` has chosen one
        method, options = result.method, result.options
    package = publish_package(
        session,
        stored.package,
        row.base_version if methods.get(method).needs_base else None,
        version,
        method,
        options,
        result.learnable_count,
        _metrics(result),
        refinement_id=row.id,
    )
    row.target_version_id, row.package_id = version.id, package.id
    row.state, row.finished_at = "succeeded", now()
    record_event(session, "refinement.succeeded", row, size_bytes=package.size_bytes)


def _metrics(result: Result) -> dict[str, Any]:
    golden = {"golden": result.golden} if result.golden else {}
    built = {
        "full_bytes": result.full_bytes,
        "coder": result.coder,
        "tensors": result.tensors,
    }
    return {**result.metrics, **built, **golden}


def _read_result(folder: Path) -> Result:
    try:
        return Result.model_validate_json((folder / spec.RESULT).read_bytes())
    except (OSError, ValidationError) as error:
        text = "the refinement's process ended well but left no result"
        raise ServerError("worker_failed", text) from error


def _link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under another name: a link where the file system can, else a copy."""
    beside = target.with_name(f".{target.name}")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except OSError:
        shutil.copyfile(source, beside)
    beside.replace(target)
