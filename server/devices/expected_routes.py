"""Routes of devices that are expected, under /api/v1/preauthorisations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from sqlalchemy import select

from server.api.context import EngineDep
from server.api.idempotency import OnceDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading, writing
from server.devices.expected import preauthorise, withdraw
from server.devices.token_schemas import PreauthorisationIn, PreauthorisationOut, bounds_of
from server.tables import Preauthorisation

router = APIRouter(prefix="/api/v1/preauthorisations", tags=["enrolment"], dependencies=[Operator])

RowPath = Annotated[int, Path(ge=1, lt=1 << 31, description="Id of the preauthorisation.")]


@router.post(
    "",
    summary="Expect a device",
    status_code=201,
    response_model=PreauthorisationOut,
    responses=answers("device.preauthorised", "device.key_taken", "request.key_reused"),
)
def post_preauthorisation(body: PreauthorisationIn, engine: EngineDep, once: OnceDep) -> Response:
    """Let one device in without waiting, when it comes with any token of this server."""
    with writing(engine) as session:

        def create() -> PreauthorisationOut:
            row = Preauthorisation(
                name=body.name,
                public_key=body.key,
                tags=sorted(body.tags),
                models=bounds_of(body.models),
                device_id=None,
            )
            preauthorise(session, row)
            return _described(row)

        return once.answer(session, create)


@router.get("", summary="List expected devices", responses=answers("request.bad_cursor"))
def get_preauthorisations(engine: EngineDep, part: SliceDep) -> Page[PreauthorisationOut]:
    """All that were expected, the newest first; `device_id` says which have come."""
    with reading(engine) as session:
        query = select(Preauthorisation)
        rows, after = page_of(session, query, Preauthorisation.id, part, descending=True)
        return Page(items=[_described(row) for row in rows], next=after)


@router.delete(
    "/{row_id}",
    summary="Expect a device no longer",
    status_code=204,
    responses=answers("device.preauthorisation_not_found"),
)
def delete_preauthorisation(row_id: RowPath, engine: EngineDep) -> None:
    """Withdraw what nobody has come by yet."""
    with writing(engine) as session:
        withdraw(session, row_id)


def _described(row: Preauthorisation) -> PreauthorisationOut:
    same = PreauthorisationOut.model_fields.keys() - {"key"}
    return PreauthorisationOut(**{n: getattr(row, n) for n in same}, key=row.public_key)
