"""Routes of rollouts under /api/v1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.api.context import EngineDep
from server.api.idempotency import OnceDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading, writing
from server.registry.models import find_model
from server.registry.versions import find_version
from server.rollouts.deploy import (
    abort_rollout,
    admit_rest,
    count_states,
    find_rollout,
    start_rollout,
)
from server.tables import Assignment, Device, Model, Package, Rollout, Version
from shared.wire import ModelName

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"], dependencies=[Operator])

RolloutPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the rollout.")]


class RolloutIn(BaseModel):
    """A rollout to start: every device of the model goes to the version."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "digits", "version": 2}]}
    )

    model: ModelName
    version: int = Field(ge=1, lt=1 << 31, description="Number of the version.")


class RolloutOut(BaseModel):
    """A rollout, with its assignments counted by state."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 2,
                    "model": "digits",
                    "version": 2,
                    "state": "active",
                    "assignments": {"committed": 1, "offered": 1},
                    "created_at": "2026-03-01T10:12:00Z",
                    "finished_at": None,
                }
            ]
        }
    )

    id: int
    model: str
    version: int
    state: str = Field(description="active | finished | aborted")
    assignments: dict[str, int] = Field(description="State -> number of devices.")
    created_at: datetime
    finished_at: datetime | None


class AssignmentOut(BaseModel):
    """One device in one rollout."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 3,
                    "rollout": 2,
                    "device_id": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11",
                    "device": "line3-cam1",
                    "state": "committed",
                    "held": None,
                    "package": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "result": "committed",
                    "error": None,
                    "created_at": "2026-03-01T10:12:00Z",
                    "offered_at": "2026-03-01T10:12:20Z",
                    "finished_at": "2026-03-01T10:12:22Z",
                }
            ]
        }
    )

    id: int
    rollout: int
    device_id: str
    device: str = Field(description="Name of the device.")
    state: str
    held: str | None = Field(description="Why nothing is offered yet.")
    package: str | None = Field(description="SHA-256 of the package; null: 0 bytes needed.")
    result: str | None = Field(description="Result word of the device's report.")
    error: dict[str, Any] | None
    created_at: datetime
    offered_at: datetime | None
    finished_at: datetime | None


def describe_rollout(session: Session, rollout: Rollout) -> RolloutOut:
    """The rollout as the API shows it."""
    return RolloutOut(
        id=rollout.id,
        model=session.get_one(Model, rollout.model_id).name,
        version=session.get_one(Version, rollout.version_id).number,
        state=rollout.state,
        assignments=count_states(session, rollout),
        created_at=rollout.created_at,
        finished_at=rollout.finished_at,
    )


def _describe_assignment(session: Session, row: Assignment) -> AssignmentOut:
    package = session.get(Package, row.package_id) if row.package_id is not None else None
    same = AssignmentOut.model_fields.keys() - {"rollout", "device", "package"}
    return AssignmentOut(
        **{name: getattr(row, name) for name in same},
        rollout=row.rollout_id,
        device=session.get_one(Device, row.device_id).name,
        package=package.sha256 if package is not None else None,
    )


@router.post(
    "",
    summary="Start a rollout",
    status_code=201,
    response_model=RolloutOut,
    responses=answers("model.not_found", "version.not_found", "request.key_reused"),
)
def post_rollout(body: RolloutIn, engine: EngineDep, once: OnceDep) -> Response:
    """Assign the version to every device of the model, at once.

    Each device gets at its next poll the smallest package that takes it there; where there is
    none, a `full` package is built for it. Open assignments of older rollouts are superseded.
    """
    started: list[int] = []
    with writing(engine) as session:

        def create() -> RolloutOut:
            model = find_model(session, body.model)
            rollout = start_rollout(session, model, find_version(session, model, body.version))
            started.append(rollout.id)
            return describe_rollout(session, rollout)

        answer = once.answer(session, create)
    for rollout_id in started:
        admit_rest(engine, rollout_id)
    return answer


@router.get(
    "",
    summary="List rollouts",
    responses=answers("model.not_found", "request.bad_cursor"),
)
def get_rollouts(
    engine: EngineDep,
    part: SliceDep,
    model: Annotated[str | None, Query(description="Name of a model.")] = None,
    state: Annotated[str | None, Query(description="active | finished | aborted")] = None,
) -> Page[RolloutOut]:
    """Rollouts, newest first."""
    with reading(engine) as session:
        query = select(Rollout)
        if model is not None:
            query = query.where(Rollout.model_id == find_model(session, model).id)
        if state is not None:
            query = query.where(Rollout.state == state)
        rows, after = page_of(session, query, Rollout.id, part, descending=True)
        return Page(items=[describe_rollout(session, row) for row in rows], next=after)


@router.get("/{rollout_id}", summary="Show a rollout", responses=answers("rollout.not_found"))
def get_rollout(rollout_id: RolloutPath, engine: EngineDep) -> RolloutOut:
    """One rollout."""
    with reading(engine) as session:
        return describe_rollout(session, find_rollout(session, rollout_id))


@router.get(
    "/{rollout_id}/assignments",
    summary="List a rollout's assignments",
    responses=answers("rollout.not_found", "request.bad_cursor"),
)
def get_assignments(
    rollout_id: RolloutPath, engine: EngineDep, part: SliceDep
) -> Page[AssignmentOut]:
    """What has become of each device in the rollout."""
    with reading(engine) as session:
        rollout = find_rollout(session, rollout_id)
        query = select(Assignment).where(Assignment.rollout_id == rollout.id)
        rows, after = page_of(session, query, Assignment.id, part)
        return Page(items=[_describe_assignment(session, row) for row in rows], next=after)


@router.post(
    "/{rollout_id}/abort",
    summary="Abort a rollout",
    responses=answers("rollout.not_found", "rollout.not_active"),
)
def post_abort(rollout_id: RolloutPath, engine: EngineDep) -> RolloutOut:
    """Take back what has not ended; devices that have committed keep the new weights."""
    with writing(engine) as session:
        rollout = find_rollout(session, rollout_id)
        abort_rollout(session, rollout)
        return describe_rollout(session, rollout)
