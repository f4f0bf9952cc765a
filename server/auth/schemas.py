"""Keys of operators as the API takes and shows them; the text of one is shown once."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.auth.keys import NAME
from server.auth.roles import Principal, Role
from server.tables import ApiKey, Group, now

GIVEN: dict[str, JsonValue] = {
    "name": "line3-deploy",
    "role": "operator",
    "groups": ["line3"],
    "expires_at": "2027-03-01T00:00:00Z",
}
SHOWN: dict[str, JsonValue] = {
    **GIVEN,
    "models": None,
    "state": "active",
    "created_at": "2026-03-01T10:00:00Z",
    "created_by": "first",
    "revoked_at": None,
    "last_used_at": "2026-03-01T10:15:00Z",
    "last_used_from": "192.0.2.7",
}

KeyName = Annotated[str, StringConstraints(pattern=NAME)]
Held = Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=100)]


class KeyIn(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [GIVEN]})

    name: KeyName = Field(description="What history says; never given twice.")
    role: Role
    models: Held | None = Field(None, description="Names of the only models that it sees.")
    groups: Held | None = Field(None, description="Groups on whose devices alone it acts.")
    expires_at: AwareDatetime | None = Field(None, description="When it ends; null: never.")


class KeyOut(BaseModel):
    """A key, without what opens anything."""

    model_config = ConfigDict(json_schema_extra={"examples": [SHOWN]})

    name: str
    role: str = Field(description="viewer | operator | admin")
    models: list[str] | None
    groups: list[str] | None
    state: str = Field(description="active | expired | revoked")
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To some seconds.")
    last_used_from: str | None = Field(description="The address.")


class KeyMadeOut(KeyOut):
    """A key that was just made, with its text."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**SHOWN, "key": "weft_0c5e1d9a7b32_Jx7..."}]}
    )

    key: str = Field(description="What opens the management plane; not shown again.")


class MeOut(BaseModel):
    """Whoever asks, as the server sees them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "line3", "role": "operator", "models": None, "groups": ["line3"]}]
        }
    )

    name: str
    role: str
    models: list[str] | None
    groups: list[str] | None


def state_of(key: ApiKey) -> str:
    """Whether a key opens anything."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now() else "active"


def describe_key(session: Session, key: ApiKey) -> KeyOut:
    """The key as the API shows it."""
    same = KeyOut.model_fields.keys() - {"groups", "state"}
    values: dict[str, Any] = {name: getattr(key, name) for name in same}
    return KeyOut(**values, groups=_names(session, key.groups), state=state_of(key))


def describe_me(session: Session, me: Principal) -> MeOut:
    """Somebody who was let in, as the API shows it."""
    return MeOut(
        name=me.name,
        role=me.role,
        models=None if me.models is None else list(me.models),
        groups=_names(session, None if me.groups is None else list(me.groups)),
    )


def _names(session: Session, ids: list[int] | None) -> list[str] | None:
    if ids is None:
        return None
    return sorted(session.scalars(select(Group.name).where(Group.id.in_(cast("Any", ids)))))
