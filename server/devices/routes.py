"""Routes of devices under /api/v1: what operators see of them, and change."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.api.context import EngineDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading, writing
from server.devices.policy import settle
from server.devices.presence import Presence
from server.devices.tags import TAG, change_tags, tag_matching
from server.devices.view import DeviceOut, describe
from server.errors import BadDevice
from server.filters import devices_where
from server.history.events import record
from server.rollouts.deploy import device_changed
from server.rollouts.penalty import failures_forgotten
from server.tables import Device, DeviceModel
from shared.wire import OneLine

router = APIRouter(prefix="/api/v1/devices", tags=["devices"], dependencies=[Operator])

#: What a filter may be refused for.
FILTER_REFUSALS = ("filter.syntax", "filter.unknown_field", "filter.bad_value", "filter.too_long")

Tag = Annotated[str, StringConstraints(pattern=TAG)]
DevicePath = Annotated[str, Path(description="Id of the device.")]

#: Name of an order -> its key, and whether the largest comes first.
ORDERS = {
    "newest": ((Device.created_at, Device.id), True),
    "name": ((Device.name, Device.id), False),
    "id": ((Device.id,), False),
}


async def _presence(request: Request) -> Presence:
    return cast("Presence", request.app.state.presence)


PresenceDep = Annotated[Presence, Depends(_presence)]


class DeviceChangeIn(BaseModel):
    """What to change of a device; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "line3-cam2", "failures": 0}]}
    )

    name: OneLine | None = None
    failures: Literal[0] | None = Field(None, description="0: forget that updates failed.")

    @field_validator("name", "failures")
    @classmethod
    def _is_given(cls, value: str | int | None) -> str | int | None:
        if value is None:
            raise ValueError("cannot be null")
        return value


class TagsIn(BaseModel):
    """Tags for all devices that match a filter."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"filter": "attr.gpu==orin", "add": ["canary"], "remove": ["spare"]}]
        },
    )

    filter: str = Field(description="Which devices; `id==*`: all.")
    add: set[Tag] = Field(default_factory=set, max_length=50)
    remove: set[Tag] = Field(default_factory=set, max_length=50)


class TaggedOut(BaseModel):
    """How many devices matched, and how many of them had not all of it already."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"matched": 40, "changed": 38}]})

    matched: int
    changed: int


@router.get("", summary="List devices", responses=answers("request.bad_cursor", *FILTER_REFUSALS))
def get_devices(
    engine: EngineDep,
    part: SliceDep,
    presence: PresenceDep,
    filter_: Annotated[
        str | None, Query(alias="filter", description="Only devices that match.")
    ] = None,
    model: Annotated[str | None, Query(description="Only devices that run this model.")] = None,
    sort: Annotated[Literal["newest", "name", "id"], Query(description="The order.")] = "newest",
) -> Page[DeviceOut]:
    """Devices with what they hold, as far as they have said."""
    key, descending = ORDERS[sort]
    with reading(engine) as session:
        query = select(Device)
        if filter_ is not None:
            query = query.where(devices_where(session, filter_))
        if model is not None:
            runs = select(DeviceModel.device_id).where(DeviceModel.model_name == model)
            query = query.where(Device.id.in_(runs))
        rows, after = page_of(session, query, key, part, descending)
        return Page(items=describe(session, rows, presence), next=after)


@router.post("/tags", summary="Tag many devices", responses=answers(*FILTER_REFUSALS))
def post_tags(body: TagsIn, engine: EngineDep) -> TaggedOut:
    """Add tags to, and remove tags from, all devices that match; repeating it changes nothing."""
    counts = tag_matching(engine, body.filter, body.add, body.remove)
    return TaggedOut(matched=counts.matched, changed=counts.changed)


@router.get("/{device_id}", summary="Show a device", responses=answers("device.not_found"))
def get_device(device_id: DevicePath, engine: EngineDep, presence: PresenceDep) -> DeviceOut:
    """One device, with what it holds."""
    with reading(engine) as session:
        return show_device(session, device_id, presence)


@router.patch("/{device_id}", summary="Change a device", responses=answers("device.not_found"))
def patch_device(
    device_id: DevicePath, body: DeviceChangeIn, engine: EngineDep, presence: PresenceDep
) -> DeviceOut:
    """Rename it, or forget that its updates failed."""
    with writing(engine) as session:
        device = find_device(session, device_id)
        changed = {
            name: value
            for name, value in body.model_dump(exclude_unset=True).items()
            if value != getattr(device, name)
        }
        if changed:
            before = {name: getattr(device, name) for name in changed}
            record(session, "device.changed", {**changed, "before": before}, device_id=device_id)
        for name, value in changed.items():
            setattr(device, name, value)
        settle(session, [device_id])
        device_changed(session, device_id)
        if "failures" in changed:
            failures_forgotten(session, device_id)
        return show_device(session, device_id, presence)


@router.put(
    "/{device_id}/tags/{tag}", summary="Tag a device", responses=answers("device.not_found")
)
def put_tag(device_id: DevicePath, tag: Tag, engine: EngineDep, presence: PresenceDep) -> DeviceOut:
    """Put a tag on one device, if it is not there."""
    with writing(engine) as session:
        find_device(session, device_id)
        if change_tags(session, [device_id], [tag], []):
            device_changed(session, device_id)
        return show_device(session, device_id, presence)


@router.delete(
    "/{device_id}/tags/{tag}", summary="Untag a device", responses=answers("device.not_found")
)
def delete_tag(
    device_id: DevicePath, tag: Tag, engine: EngineDep, presence: PresenceDep
) -> DeviceOut:
    """Take a tag off one device, if it is there."""
    with writing(engine) as session:
        find_device(session, device_id)
        if change_tags(session, [device_id], [], [tag]):
            device_changed(session, device_id)
        return show_device(session, device_id, presence)


def find_device(session: Session, device_id: str) -> Device:
    """The device of that id. Raises BadDevice `not_found`."""
    device = session.get(Device, device_id)
    if device is None:
        raise BadDevice("not_found", f"there is no device {device_id[:64]!r}")
    return device


def show_device(session: Session, device_id: str, presence: Presence) -> DeviceOut:
    """The device as the API shows it. Raises BadDevice `not_found`."""
    return describe(session, [find_device(session, device_id)], presence)[0]
