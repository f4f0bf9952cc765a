"""Routes of lineage: of a version, and of what ran on devices."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime
from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from server.api.context import EngineDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.db import reading
from server.errors import BadRequest
from server.history.lineage import (
    descendants,
    find_dataset,
    find_version,
    learnt_from,
    runs_of,
    version_lineage,
)
from server.history.lineage_schemas import LineageOut, RunOut
from server.history.selection import NO_NUL, in_utc
from server.tables import Device, Model, Run, Version

router = APIRouter(prefix="/api/v1", tags=["history"])

NumberPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Number of the version.")]


@router.get(
    "/models/{model}/versions/{number}/lineage",
    summary="Show a version's lineage",
    responses=answers("model.not_found", "version.not_found"),
)
def get_version_lineage(
    model: Annotated[str, Path(pattern=NO_NUL, description="Name of the model.")],
    number: NumberPath,
    engine: EngineDep,
) -> LineageOut:
    """All that the version comes from, and all that has been made of it.

    A version comes from its parent and from what it approximates; each is shown with the
    refinements and datasets that made it, and the packages that lead to it.
    """
    with reading(engine) as session:
        return version_lineage(session, *find_version(session, model, number))


@router.get(
    "/lineage",
    summary="List the devices that ran derived weights",
    responses=answers(
        "dataset.not_found",
        "model.not_found",
        "version.not_found",
        "request.bad_cursor",
        "request.invalid",
    ),
)
def get_lineage(
    engine: EngineDep,
    part: SliceDep,
    dataset: Annotated[
        str | None, Query(pattern=NO_NUL, description="Weights that learnt from this dataset.")
    ] = None,
    model: Annotated[
        str | None, Query(pattern=NO_NUL, description="With `version`: that version and")
    ] = None,
    version: Annotated[
        int | None, Query(ge=1, lt=1 << 31, description="all that has been made of it.")
    ] = None,
    since: Annotated[AwareDatetime | None, Query(description="In use after this moment.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="In use before this moment.")] = None,
) -> Page[RunOut]:
    """Which devices ran weights derived from a dataset, or from a version, between which dates.

    One item for each time that a device had such weights in use, as far as devices have reported.
    """
    with reading(engine) as session:
        query = _asked_for(session, dataset, model, version)
        if since is not None:
            query = query.where(or_(Run.until.is_(None), Run.until > in_utc("since", since)))
        if until is not None:
            query = query.where(Run.since < in_utc("until", until))
        rows, after = page_of(session, query, Run.id, part)
        return Page(items=[_describe(session, row) for row in rows], next=after)


def _asked_for(
    session: Session, dataset: str | None, model: str | None, version: int | None
) -> Select[Run]:
    if (model is None) != (version is None) or (dataset is None and model is None):
        raise BadRequest("invalid", "query: give `dataset`, or `model` and `version`, or all three")
    derived = []
    if dataset is not None:
        derived.append(descendants(learnt_from(find_dataset(session, dataset)), "of_dataset"))
    if model is not None and version is not None:
        _, found = find_version(session, model, version)
        first = select(Version.id).where(Version.id == found.id)
        derived.append(descendants(first, "of_version"))
    return runs_of(derived)


def _describe(session: Session, run: Run) -> RunOut:
    numbers = (
        select(Version.number)
        .join(Model, Version.model_id == Model.id)
        .where(Model.name == run.model_name, Version.weights_digest == run.weights_digest)
    )
    device = session.get(Device, run.device_id)
    return RunOut(
        device_id=run.device_id,
        device=device.name if device is not None else None,
        model=run.model_name,
        version=session.scalar(numbers),
        weights_digest=run.weights_digest,
        since=run.since,
        until=run.until,
    )
