"""Routes of a device's standing: who is accepted, goes or comes again; what was signed."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.api.context import EngineDep, TrustDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading, writing
from server.devices.allowed import allow
from server.devices.routes import DevicePath, PresenceDep, find_device, show_device
from server.devices.standing import accept, decommission, require_in_service
from server.devices.token_schemas import (
    AllowedModelsIn,
    ReenrolIn,
    SignedReportOut,
    TokenMadeOut,
    TokenOut,
    bounds_of,
)
from server.devices.tokens import create_token, revoke_tokens_of
from server.devices.view import DeviceOut
from server.tables import EnrolmentToken, Run, SignedReport, now
from shared.wire import pinned

router = APIRouter(prefix="/api/v1/devices", tags=["devices"], dependencies=[Operator])

BY_DEFAULT = ReenrolIn()


@router.post(
    "/{device_id}/accept",
    summary="Accept a device",
    responses=answers("device.not_found", "device.decommissioned"),
)
def post_accept(device_id: DevicePath, engine: EngineDep, presence: PresenceDep) -> DeviceOut:
    """Offer it what the others are offered.

    Of a device that is held as `cloned` it says: there is one such device, put back to an earlier
    state. Its counters then begin anew.
    """
    with writing(engine) as session:
        accept(session, find_device(session, device_id))
        return show_device(session, device_id, presence)


@router.post(
    "/{device_id}/decommission",
    summary="Decommission a device",
    responses=answers("device.not_found"),
)
def post_decommission(device_id: DevicePath, engine: EngineDep, presence: PresenceDep) -> DeviceOut:
    """Take it out of service, for good: key and token are worth nothing; its history stays."""
    with writing(engine) as session:
        decommission(session, find_device(session, device_id))
        return show_device(session, device_id, presence)


@router.put(
    "/{device_id}/allowed_models",
    summary="Say which models a device may run",
    responses=answers("device.not_found", "device.decommissioned"),
)
def put_allowed_models(
    device_id: DevicePath, body: AllowedModelsIn, engine: EngineDep, presence: PresenceDep
) -> DeviceOut:
    """Let the device claim these models and no other; null: any.

    Of another model it gets nothing from then on: what is open ends, and what it says of it is
    refused.
    """
    with writing(engine) as session:
        allow(session, find_device(session, device_id), bounds_of(body.models))
        return show_device(session, device_id, presence)


@router.post(
    "/{device_id}/reenrol",
    summary="Let a device enrol once more",
    status_code=201,
    responses=answers("device.not_found", "device.decommissioned"),
)
def post_reenrol(
    device_id: DevicePath, engine: EngineDep, trust: TrustDep, body: ReenrolIn = BY_DEFAULT
) -> TokenMadeOut:
    """Make a token by which this device enrols as itself, with a new key.

    The key that it had is worth nothing from then on, so a copy of the device is shut out. Tokens
    that were made before for this device are revoked. This answer alone shows the token.
    """
    seconds = body.expires_in_seconds
    with writing(engine) as session:
        device = find_device(session, device_id)
        require_in_service(device)
        revoke_tokens_of(session, device_id)
        token = EnrolmentToken(
            name=f"again: {device.name}"[:200],
            accept="automatic",
            tags=[],
            max_uses=1,
            device_id=device_id,
            expires_at=now() + timedelta(seconds=seconds) if seconds else None,
        )
        secret = create_token(session, token)
        shown = pinned(secret, trust.root_sha256(session))
        return TokenMadeOut(**TokenOut.model_validate(token).model_dump(), token=shown)


@router.get(
    "/{device_id}/reports",
    summary="List a device's signed reports",
    responses=answers("device.not_found", "request.bad_cursor"),
)
def get_reports(
    device_id: DevicePath,
    engine: EngineDep,
    part: SliceDep,
    model: Annotated[str | None, Query(description="Only those about this model.")] = None,
    in_use: Annotated[
        bool | None, Query(description="Only those that say what is in use now, or the others.")
    ] = None,
) -> Page[SignedReportOut]:
    """What the device has reported, byte for byte, the newest first.

    Its signature is of the bytes `weft report/1`, a line feed, the device's id, a line feed, and
    the body: with the public key, anybody can verify what ran without asking this server.
    """
    with reading(engine) as session:
        find_device(session, device_id)
        current = _in_use(session, device_id)
        query = select(SignedReport).where(SignedReport.device_id == device_id)
        if model is not None:
            query = query.where(SignedReport.model_name == model)
        if in_use is not None:
            among = SignedReport.id.in_(list(current))
            query = query.where(among if in_use else ~among)
        rows, after = page_of(session, query, SignedReport.id, part, descending=True)
        return Page(items=[_described(row, row.id in current) for row in rows], next=after)


def _in_use(session: Session, device_id: str) -> set[int]:
    """The reports that tell of the weights that the device has in use."""
    still = (Run.device_id == device_id) & Run.until.is_(None)
    return {found for found in session.scalars(select(Run.report_id).where(still)) if found}


def _described(row: SignedReport, in_use: bool) -> SignedReportOut:
    same = SignedReportOut.model_fields.keys() - {"model", "in_use"}
    values = {name: getattr(row, name) for name in same}
    return SignedReportOut(**values, model=row.model_name, in_use=in_use)
