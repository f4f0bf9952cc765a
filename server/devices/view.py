"""Devices as operators see them: read for a whole page at once, whatever its length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.devices.examples import DEVICE
from server.devices.presence import Presence
from server.tables import Assignment, Device, DeviceModel, DeviceTag, Model, Rollout, Version

#: (model's name, weights digest) -> number of the version.
Numbers: TypeAlias = dict[tuple[str, str], int]


class Slot(BaseModel):
    """Weights that a device holds."""

    weights_digest: str
    version: int | None = Field(description="Number, where the registry knows the weights.")


class OpenAssignment(BaseModel):
    """What a device is on its way to."""

    id: int
    rollout: int
    version: int
    state: str
    held: str | None = Field(description="Why nothing is offered yet.")
    held_detail: dict[str, Any] | None = Field(description="The figures of the reason.")
    offered_at: datetime | None


class HeldOut(BaseModel):
    """What a device holds of one model, as far as it has said."""

    model: str
    weights_digest: str | None
    version: int | None = Field(description="Number, where the registry knows the weights.")
    slots: list[Slot] = Field(description="All weights that it holds.")
    state: str = Field(description="How its last update ended.")
    health: str
    assignment: OpenAssignment | None


class DeviceOut(BaseModel):
    """An enrolled device."""

    model_config = ConfigDict(json_schema_extra={"examples": [DEVICE]})

    id: str
    name: str
    standing: str = Field(description="pending | accepted | cloned | decommissioned")
    tags: list[str] = Field(description="Set by operators.")
    allowed_models: list[str] | None = Field(description="What it may claim; null: any model.")
    attributes: dict[str, str] = Field(description="Reported by the device.")
    models: list[HeldOut]
    capabilities: dict[str, Any] = Field(description="What it can decode and hold.")
    poll_interval: float | None = Field(
        description="Seconds, as its groups set them; null: the server's setting."
    )
    update_budget: int | None = Field(
        description="Most bytes of an update, as its groups set them; null: the server's setting."
    )
    failures: int = Field(description="Updates that failed in a row.")
    generation: int = Field(description="Rises with every change of what it should run.")
    public_key: str | None = Field(description="Its Ed25519 key, in hex.")
    token_expires_at: datetime | None = Field(description="When it has to renew its own token.")
    enrolment_token_id: int | None = Field(description="The enrolment token by which it came.")
    last_seen_at: datetime | None
    created_at: datetime


def describe(session: Session, devices: Sequence[Device], presence: Presence) -> list[DeviceOut]:
    """The devices as the API shows them."""
    ids = [device.id for device in devices]
    tags, models = _tags(session, ids), _models(session, ids)
    copied = DeviceOut.model_fields.keys() - {"tags", "models", "last_seen_at"}
    return [
        DeviceOut(
            **{name: getattr(device, name) for name in copied},
            tags=tags[device.id],
            models=models[device.id],
            last_seen_at=presence.last_seen(device.id, device.last_seen_at),
        )
        for device in devices
    ]


def _tags(session: Session, ids: Sequence[str]) -> defaultdict[str, list[str]]:
    found = defaultdict(list)
    query = select(DeviceTag).where(DeviceTag.device_id.in_(ids)).order_by(DeviceTag.tag)
    for row in session.scalars(query):
        found[row.device_id].append(row.tag)
    return found


def _models(session: Session, ids: Sequence[str]) -> defaultdict[str, list[HeldOut]]:
    query = select(DeviceModel).where(DeviceModel.device_id.in_(ids))
    rows = list(session.scalars(query.order_by(DeviceModel.model_name)))
    numbers, opened = _numbers(session, rows), _open(session, ids)
    found = defaultdict(list)
    for row in rows:
        name = row.model_name
        found[row.device_id].append(
            HeldOut(
                model=name,
                weights_digest=row.weights_digest,
                version=numbers.get((name, row.weights_digest or "")),
                slots=[Slot(weights_digest=d, version=numbers.get((name, d))) for d in row.slots],
                state=row.state,
                health=row.health,
                assignment=opened.get((row.device_id, name)),
            )
        )
    return found


def _numbers(session: Session, rows: Sequence[DeviceModel]) -> Numbers:
    """The versions among all the weights that these rows name."""
    digests = {digest for row in rows for digest in (row.weights_digest, *row.slots) if digest}
    query = (
        select(Model.name, Version.weights_digest, Version.number)
        .join(Version, Version.model_id == Model.id)
        .where(Model.name.in_({row.model_name for row in rows}))
        .where(Version.weights_digest.in_(digests))
    )
    return {(name, digest): number for name, digest, number in session.execute(query)}


def _open(session: Session, ids: Sequence[str]) -> dict[tuple[str, str], OpenAssignment]:
    """(device, model's name) -> what is open."""
    query = (
        select(Assignment, Model.name, Version.number)
        .join(Rollout, Assignment.rollout_id == Rollout.id)
        .join(Version, Rollout.version_id == Version.id)
        .join(Model, Assignment.model_id == Model.id)
        .where(Assignment.device_id.in_(ids), Assignment.finished_at.is_(None))
    )
    copied = ("id", "state", "held", "held_detail", "offered_at")
    return {
        (row.device_id, model): OpenAssignment(
            **{name: getattr(row, name) for name in copied}, rollout=row.rollout_id, version=number
        )
        for row, model, number in session.execute(query)
    }
