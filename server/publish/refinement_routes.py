"""/refinements: create, list, show, follow, cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, cast

import anyio
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from server.api.context import EngineDep, SettingsDep
from server.api.idempotency import OnceDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.api.streams import follow
from server.auth.keys import still_opens
from server.db import reading, writing
from server.errors import BadRefinement
from server.jobs import queue
from server.jobs.supervisor import Supervisor
from server.publish.budget.goal import AUTO, read_goal
from server.publish.schemas import RefinementIn, RefinementOut, describe_refinement
from server.refine.recipe import Recipe
from server.registry.datasets import find_dataset
from server.registry.models import find_model, schema_with
from server.registry.versions import find_version, require_weights
from server.tables import Model, Refinement, Version
from shared import methods

router = APIRouter(prefix="/api/v1/refinements", tags=["refinements"])

#: Seconds between two looks at a refinement that somebody follows.
LOOK_INTERVAL = 0.5

IdPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the refinement.")]


def _supervisor(request: Request) -> Supervisor:
    return cast("Supervisor", request.app.state.supervisor)


SupervisorDep = Annotated[Supervisor, Depends(_supervisor)]


@router.post(
    "",
    summary="Refine a version",
    status_code=202,
    response_model=RefinementOut,
    responses=answers(
        "model.not_found",
        "model.unknown_architecture",
        "version.not_found",
        "version.removed",
        "dataset.not_found",
        "method.unknown",
        "method.bad_option",
        "refinement.bad_recipe",
        "refinement.bad_goal",
        "refinement.no_architecture",
        "request.key_reused",
    ),
)
def post_refinement(
    body: RefinementIn,
    engine: EngineDep,
    settings: SettingsDep,
    once: OnceDep,
    supervisor: SupervisorDep,
) -> Response:
    """Put a refinement into the queue; follow it at `/refinements/{id}/events`."""
    with reading(engine) as session:
        model, base = _start(session, body)
    if body.target_arguments is not None:  # refused now, not by the process minutes later
        arguments = {**(base.arguments or {}), **body.target_arguments}
        schema_with(model, arguments, settings.model_modules)
    with writing(engine) as session:
        answer = once.answer(session, lambda: _create(session, body), 202)
    supervisor.wake()
    return answer


def _start(session: Session, body: RefinementIn) -> tuple[Model, Version]:
    model = find_model(session, body.model)
    if model.architecture is None:
        raise BadRefinement("no_architecture", f"{model.name} has no architecture")
    base = find_version(session, model, body.base or _newest(session, model))
    require_weights(base)
    return model, base


def _create(session: Session, body: RefinementIn) -> RefinementOut:
    model, base = _start(session, body)
    evaluation = body.evaluation_dataset
    row = Refinement(
        model=model,
        base_version=base,
        dataset=find_dataset(session, body.dataset),
        evaluation_dataset=find_dataset(session, evaluation) if evaluation else None,
        method={"id": body.method.id, "options": _options(body)},
        recipe=_recipe(body),
        target_arguments=body.target_arguments,
    )
    session.add(row)
    session.flush()
    told = {"method": body.method.id, "base": base.number}
    queue.record_event(session, "refinement.queued", row, **told)
    return describe_refinement(row)


def _newest(session: Session, model: Model) -> int:
    """The newest number; 1 where there is none, which is then not found by that name."""
    last = select(func.max(Version.number)).where(Version.model_id == model.id)
    return session.scalar(last) or 1


def _options(body: RefinementIn) -> dict[str, object]:
    if body.method.id == AUTO:
        return read_goal(body.method.options).model_dump()
    return methods.options(methods.get(body.method.id), body.method.options).model_dump()


def _recipe(body: RefinementIn) -> dict[str, object]:
    try:
        return Recipe.model_validate(body.recipe).model_dump(mode="json")
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:20]]
        raise BadRefinement("bad_recipe", "; ".join(found)) from error


@router.get("", summary="List refinements", responses=answers("model.not_found"))
def get_refinements(
    engine: EngineDep,
    part: SliceDep,
    model: Annotated[str | None, Query(description="Only those of this model.")] = None,
    state: Annotated[str | None, Query(description="Only those in this state.")] = None,
) -> Page[RefinementOut]:
    """Refinements, newest first."""
    query = select(Refinement)
    with reading(engine) as session:
        if model is not None:
            query = query.where(Refinement.model_id == find_model(session, model).id)
        if state is not None:
            query = query.where(Refinement.state == state)
        rows, after = page_of(session, query, Refinement.id, part, descending=True)
        return Page(items=[describe_refinement(row) for row in rows], next=after)


@router.get("/{id}", summary="Show a refinement", responses=answers("refinement.not_found"))
def get_refinement(id: IdPath, engine: EngineDep) -> RefinementOut:  # noqa: A002 - the API's word
    """One refinement, with its newest progress."""
    return _look(engine, id)


@router.post(
    "/{id}/cancel",
    summary="Cancel a refinement",
    responses=answers("refinement.not_found", "refinement.not_cancellable"),
)
def cancel_refinement(
    id: IdPath,  # noqa: A002 - the API's word
    engine: EngineDep,
    supervisor: SupervisorDep,
) -> RefinementOut:
    """End a refinement that is queued or running; nothing is published."""
    with writing(engine) as session:
        row = find_refinement(session, id, lock=True)
        if not queue.cancel(session, row):
            raise BadRefinement("not_cancellable", f"refinement {id} has {row.state} already")
        answer = describe_refinement(row)
    supervisor.cancel(id)
    return answer


@router.get(
    "/{id}/events",
    summary="Follow a refinement",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Server-sent events `refinement`: the refinement whenever it has "
            "changed; the stream ends with its last state.",
            "content": {"text/event-stream": {}},
        },
        **answers("refinement.not_found", "service.overloaded"),
    },
)
def follow_refinement(id: IdPath, engine: EngineDep) -> EventSourceResponse:  # noqa: A002
    """Progress as it comes: stage, epoch, loss, accuracy, seconds left."""
    first = _look(engine, id)
    return follow(_changes(engine, first))


async def _changes(engine: Engine, seen: RefinementOut) -> AsyncIterator[ServerSentEvent]:
    """The refinement now, then at each change, until it has ended, or the key of who asks."""
    yield _event(seen)
    while seen.state in queue.OPEN:
        await anyio.sleep(LOOK_INTERVAL)
        found = await run_in_threadpool(_look_again, engine, seen.id)
        if found is None:
            return
        if found != seen:
            yield _event(found)
        seen = found


def _event(refinement: RefinementOut) -> ServerSentEvent:
    return ServerSentEvent(refinement.model_dump_json(), event="refinement")


def _look(engine: Engine, refinement_id: int) -> RefinementOut:
    with reading(engine) as session:
        return describe_refinement(find_refinement(session, refinement_id))


def _look_again(engine: Engine, refinement_id: int) -> RefinementOut | None:
    """None: the key of who asks has ended."""
    with reading(engine) as session:
        found = describe_refinement(find_refinement(session, refinement_id))
        return found if still_opens(session) else None


def find_refinement(session: Session, refinement_id: int, lock: bool = False) -> Refinement:
    """The refinement; raises BadRefinement `not_found`."""
    row = session.get(Refinement, refinement_id, with_for_update=lock)
    if row is None:
        raise BadRefinement("not_found", f"there is no refinement {refinement_id}")
    return row
