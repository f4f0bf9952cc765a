"""Routes of groups under /api/v1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.api.context import EngineDep
from server.api.idempotency import OnceDep
from server.api.paging import Page, SliceDep, page_of
from server.api.problems import answers
from server.auth import Operator
from server.db import reading, writing
from server.devices.examples import GROUP
from server.devices.groups import change_group, create_group, delete_group, find_group
from server.devices.policy import settle_all
from server.devices.routes import FILTER_REFUSALS, PresenceDep
from server.devices.view import DeviceOut, describe
from server.filters import devices_where
from server.tables import Device, Group

router = APIRouter(prefix="/api/v1/groups", tags=["groups"], dependencies=[Operator])

#: A group's name stands in filters and addresses without quotes.
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
GroupPath = Annotated[str, Path(description="Name of the group.")]
PollInterval = Annotated[
    float | None,
    Field(gt=0, le=86400, description="Seconds between polls; the shortest of a device's groups."),
]
UpdateBudget = Annotated[
    int | None,
    Field(
        ge=0,
        lt=1 << 63,
        description="Most bytes of an update, 0: no limit; the smallest of a device's groups.",
    ),
]

_GIVEN = {name: GROUP[name] for name in ("name", "filter", "poll_interval", "update_budget")}


class GroupIn(BaseModel):
    """A group to save."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_GIVEN]})

    name: GroupName
    filter: str = Field(description="Which devices; see docs/filters.md.")
    poll_interval: PollInterval = None
    update_budget: UpdateBudget = None


class GroupChangeIn(BaseModel):
    """What to change of a group; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"poll_interval": 600}]}
    )

    name: GroupName | None = None
    filter: str | None = None
    poll_interval: PollInterval = None
    update_budget: UpdateBudget = None

    @field_validator("name", "filter")
    @classmethod
    def _is_given(cls, value: str | None) -> str | None:
        if value is None:
            raise ValueError("cannot be null")
        return value


class GroupOut(BaseModel):
    """A saved filter over devices, with what holds for those that match."""

    model_config = ConfigDict(
        from_attributes=True, json_schema_extra={"examples": [{**GROUP, "devices": 12}]}
    )

    name: str
    filter: str
    poll_interval: float | None
    update_budget: int | None
    devices: int | None = Field(None, description="How many match now; not counted in lists.")
    created_at: datetime
    updated_at: datetime


def _describe(session: Session, group: Group) -> GroupOut:
    """The group, with its members counted."""
    query = select(func.count()).select_from(Device).where(devices_where(session, group.filter))
    values: dict[str, Any] = {n: getattr(group, n) for n in GroupOut.model_fields if n != "devices"}
    return GroupOut(**values, devices=session.scalar(query))


@router.post(
    "",
    summary="Save a group",
    status_code=201,
    response_model=GroupOut,
    responses=answers("group.exists", "group.circular", "request.key_reused", *FILTER_REFUSALS),
)
def post_group(body: GroupIn, engine: EngineDep, once: OnceDep) -> Response:
    """Give a name to a filter, and say how often its devices poll and what an update may cost.

    It holds for all devices that match as soon as the answer is there.
    """
    with writing(engine) as session:

        def create() -> GroupOut:
            return _describe(session, create_group(session, body.model_dump()))

        answer = once.answer(session, create)
    if (body.poll_interval, body.update_budget) != (None, None):
        settle_all(engine)
    return answer


@router.get("", summary="List groups", responses=answers("request.bad_cursor"))
def get_groups(engine: EngineDep, part: SliceDep) -> Page[GroupOut]:
    """All groups, by name."""
    with reading(engine) as session:
        rows, after = page_of(session, select(Group), Group.name, part)
        return Page(items=[GroupOut.model_validate(row) for row in rows], next=after)


@router.get("/{name}", summary="Show a group", responses=answers("group.not_found"))
def get_group(name: GroupPath, engine: EngineDep) -> GroupOut:
    """One group, with its devices counted."""
    with reading(engine) as session:
        return _describe(session, find_group(session, name))


@router.patch(
    "/{name}",
    summary="Change a group",
    responses=answers(
        "group.not_found", "group.exists", "group.circular", "group.in_use", *FILTER_REFUSALS
    ),
)
def patch_group(name: GroupPath, body: GroupChangeIn, engine: EngineDep) -> GroupOut:
    """Change what is given. Rollouts that name the group go by the new filter from now on."""
    with writing(engine) as session:
        group = find_group(session, name)
        change_group(session, group, body.model_dump(exclude_unset=True))
        answer = _describe(session, group)
    settle_all(engine)
    return answer


@router.delete(
    "/{name}",
    summary="Delete a group",
    status_code=204,
    responses=answers("group.not_found", "group.in_use"),
)
def remove_group(name: GroupPath, engine: EngineDep) -> None:
    """Delete a group that no other group and no rollout names; its devices stay."""
    with writing(engine) as session:
        delete_group(session, find_group(session, name))
    settle_all(engine)


@router.get(
    "/{name}/devices",
    summary="List the devices of a group",
    responses=answers("group.not_found", "request.bad_cursor"),
)
def get_members(
    name: GroupPath, engine: EngineDep, part: SliceDep, presence: PresenceDep
) -> Page[DeviceOut]:
    """The devices that match the group's filter now, by id."""
    with reading(engine) as session:
        group = find_group(session, name)
        query = select(Device).where(devices_where(session, group.filter))
        rows, after = page_of(session, query, Device.id, part)
        return Page(items=describe(session, rows, presence), next=after)
