"""Routes of devices under /api/v1: what operators see of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.api.context import EngineDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading
from server.devices.presence import Presence
from server.errors import BadDevice
from server.tables import Device, DeviceModel, Model, Version

router = APIRouter(prefix="/api/v1/devices", tags=["devices"], dependencies=[Operator])


class HeldOut(BaseModel):
    """What a device holds of one model, as far as it has said."""

    model: str
    weights_digest: str | None
    version: int | None = Field(description="Number, where the registry knows the weights.")
    slots: list[str] = Field(description="Digests of all weights that it holds.")
    state: str
    health: str


class DeviceOut(BaseModel):
    """An enrolled device."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11",
                    "name": "line3-cam1",
                    "generation": 4,
                    "models": [
                        {
                            "model": "digits",
                            "weights_digest": "9f86d081884c7d659a2feaa0c55ad015"
                            "a3bf4f1b2b0b822cd15d6c15b0f00a08",
                            "version": 2,
                            "slots": [],
                            "state": "committed",
                            "health": "unverified",
                        }
                    ],
                    "capabilities": {"wire": 1, "agent": "0.1.0"},
                    "last_seen_at": "2026-03-01T10:15:00Z",
                    "created_at": "2026-03-01T09:00:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    generation: int
    models: list[HeldOut]
    capabilities: dict[str, Any]
    last_seen_at: datetime | None
    created_at: datetime


def _describe(session: Session, device: Device, presence: Presence) -> DeviceOut:
    query = (
        select(DeviceModel, Version.number)
        .outerjoin(Model, Model.name == DeviceModel.model_name)
        .outerjoin(
            Version,
            (Version.model_id == Model.id) & (Version.weights_digest == DeviceModel.weights_digest),
        )
        .where(DeviceModel.device_id == device.id)
        .order_by(DeviceModel.model_name)
    )
    held = [
        HeldOut(
            model=row.model_name,
            weights_digest=row.weights_digest,
            version=number,
            slots=row.slots,
            state=row.state,
            health=row.health,
        )
        for row, number in session.execute(query)
    ]
    return DeviceOut(
        id=device.id,
        name=device.name,
        generation=device.generation,
        models=held,
        capabilities=device.capabilities,
        last_seen_at=presence.last_seen(device.id, device.last_seen_at),
        created_at=device.created_at,
    )


def _presence(request: Request) -> Presence:
    return cast("Presence", request.app.state.presence)


@router.get("", summary="List devices", responses=answers("request.bad_cursor"))
def get_devices(
    request: Request,
    engine: EngineDep,
    part: SliceDep,
    model: Annotated[str | None, Query(description="Only devices that run this model.")] = None,
) -> Page[DeviceOut]:
    """All devices, by id."""
    with reading(engine) as session:
        query = select(Device)
        if model is not None:
            runs = select(DeviceModel.device_id).where(DeviceModel.model_name == model)
            query = query.where(Device.id.in_(runs))
        rows, after = page_of(session, query, Device.id, part)
        items = [_describe(session, row, _presence(request)) for row in rows]
        return Page(items=items, next=after)


@router.get("/{device_id}", summary="Show a device", responses=answers("device.not_found"))
def get_device(
    device_id: Annotated[str, Path(description="Id of the device.")],
    request: Request,
    engine: EngineDep,
) -> DeviceOut:
    """One device, with what it holds."""
    with reading(engine) as session:
        device = session.get(Device, device_id)
        if device is None:
            raise BadDevice("not_found", f"there is no device {device_id[:64]!r}")
        return _describe(session, device, _presence(request))
