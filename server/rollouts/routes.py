"""Routes of rollouts under /api/v1: create, list, show."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import select

from server.api.context import EngineDep
from server.api.idempotency import OnceDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading, writing
from server.filters import devices_where, rollouts_where
from server.publish.release import ReleaseDep
from server.registry.models import find_model
from server.registry.versions import find_version
from server.rollouts.answers import AssignmentOut, RolloutDetailOut, RolloutOut
from server.rollouts.deploy import create_rollout, find_rollout
from server.rollouts.order_routes import router as orders
from server.rollouts.paths import AssignmentState, RolloutPath, RolloutState
from server.rollouts.schemas import RolloutIn
from server.rollouts.showing import describe_assignment, describe_rollout, describe_whole
from server.tables import Assignment, Rollout

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"], dependencies=[Operator])

FILTER_CODES = ("filter.syntax", "filter.unknown_field", "filter.bad_value", "filter.too_long")


@router.post(
    "",
    summary="Start a rollout",
    status_code=201,
    response_model=RolloutOut,
    responses=answers(
        "model.not_found",
        "version.not_found",
        "version.not_released",
        "version.withdrawn",
        "rollout.needs_rollback",
        "request.key_reused",
        *FILTER_CODES,
    ),
)
def post_rollout(
    body: RolloutIn, engine: EngineDep, once: OnceDep, release: ReleaseDep
) -> Response:
    """Move devices of the model to the version, in phases.

    Each device gets at its next poll the smallest package that takes it there. Devices that an
    older rollout has not finished with are taken over from it. In a large fleet the answer comes
    before the first devices are admitted. Only a released version is sent: where the release key
    lies on the server, it is released by this.
    """
    with writing(engine) as session:

        def create() -> RolloutOut:
            model = find_model(session, body.model)
            version = find_version(session, model, body.version)
            if body.filter is not None:
                devices_where(session, body.filter)  # also whether the groups that it names exist
            rollout = body.as_row(model.id, version.id)
            asked = body.model_dump(exclude_defaults=True, exclude={"model", "start"})
            create_rollout(session, rollout, asked, body.start, release)
            return describe_rollout(session, rollout)

        return once.answer(session, create)


@router.get(
    "",
    summary="List rollouts",
    responses=answers("model.not_found", "request.bad_cursor", *FILTER_CODES),
)
def get_rollouts(
    engine: EngineDep,
    part: SliceDep,
    model: Annotated[str | None, Query(description="Name of a model.")] = None,
    state: Annotated[RolloutState | None, Query(description="Only those in this state.")] = None,
    filter_: Annotated[
        str | None, Query(alias="filter", min_length=1, description="RSQL; see docs/filters.md.")
    ] = None,
) -> Page[RolloutOut]:
    """Rollouts, newest first."""
    with reading(engine) as session:
        query = select(Rollout)
        if model is not None:
            query = query.where(Rollout.model_id == find_model(session, model).id)
        if state is not None:
            query = query.where(Rollout.state == state)
        if filter_ is not None:
            query = query.where(rollouts_where(session, filter_))
        rows, after = page_of(session, query, Rollout.id, part, descending=True)
        return Page(items=[describe_rollout(session, row) for row in rows], next=after)


@router.get("/{rollout_id}", summary="Show a rollout", responses=answers("rollout.not_found"))
def get_rollout(rollout_id: RolloutPath, engine: EngineDep) -> RolloutDetailOut:
    """One rollout, phase by phase."""
    with reading(engine) as session:
        return describe_whole(session, find_rollout(session, rollout_id))


@router.get(
    "/{rollout_id}/assignments",
    summary="List a rollout's assignments",
    responses=answers("rollout.not_found", "request.bad_cursor"),
)
def get_assignments(
    rollout_id: RolloutPath,
    engine: EngineDep,
    part: SliceDep,
    state: Annotated[AssignmentState | None, Query(description="Only those in this state.")] = None,
) -> Page[AssignmentOut]:
    """What has become of each device in the rollout."""
    with reading(engine) as session:
        rollout = find_rollout(session, rollout_id)
        query = select(Assignment).where(Assignment.rollout_id == rollout.id)
        if state is not None:
            query = query.where(Assignment.state == state)
        rows, after = page_of(session, query, Assignment.id, part)
        return Page(items=[describe_assignment(session, row) for row in rows], next=after)


router.routes.extend(orders.routes)
