"""Enrolment tokens, expected devices and signed reports as the API takes and shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    computed_field,
    model_validator,
)

from server.devices.examples import NEW
from server.devices.tags import TAG
from server.tables import now
from shared.wire import ModelName, OneLine, PublicKey

WEEK_SECONDS = 7 * 86400
KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

Tags = Annotated[
    set[Annotated[str, StringConstraints(pattern=TAG)]],
    Field(max_length=50, description="Given to the devices."),
]
Models = Annotated[
    set[ModelName] | None,
    Field(
        min_length=1,
        max_length=100,
        description="Names of the models that may be claimed; null: any.",
    ),
]
ExpiresIn = Annotated[
    int | None, Field(gt=0, le=3650 * 86400, description="Seconds from now; null: never.")
]
_GIVEN: dict[str, Any] = {
    "name": "line 3",
    "max_uses": 40,
    "accept": "by_hand",
    "tags": ["line3"],
    "models": ["digits"],
}
_SHOWN: dict[str, Any] = {
    "id": 3,
    "name": "line 3",
    "state": "active",
    "accept": "by_hand",
    "tags": ["line3"],
    "models": ["digits"],
    "max_uses": 40,
    "uses": 12,
    "device_id": None,
    "expires_at": "2026-03-08T10:00:00Z",
    "revoked_at": None,
    "last_used_at": "2026-03-01T10:15:00Z",
    "created_at": "2026-03-01T10:00:00Z",
}
_EXPECTED: dict[str, Any] = {"name": None, "key": KEY, "tags": ["line3"], "models": None}


def bounds_of(models: set[str] | None) -> list[str] | None:
    """As they are stored."""
    return None if models is None else sorted(models)


class TokenIn(BaseModel):
    """An enrolment token to make: by default for one device, for a week."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_GIVEN]})

    name: OneLine = Field(description="What it is for; for people.")
    max_uses: int | None = Field(
        1, ge=1, lt=1 << 31, description="Devices that may enrol by it; null: any number."
    )
    expires_in_seconds: ExpiresIn = WEEK_SECONDS
    accept: Literal["automatic", "by_hand"] = Field(
        "automatic", description="Whether its devices wait for an operator."
    )
    tags: Tags = Field(default_factory=set)
    models: Models = None


class TokenOut(BaseModel):
    """An enrolment token, without its secret, which nobody can read again."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [_SHOWN]})

    id: int
    name: str
    accept: str = Field(description="automatic | by_hand")
    tags: list[str]
    models: list[str] | None = Field(description="What its devices may claim; null: any model.")
    max_uses: int | None
    uses: int
    device_id: str | None = Field(description="The one device that it is for, once more.")
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime

    @computed_field(description="active | expired | used | revoked")  # type: ignore[prop-decorator]
    @property
    def state(self) -> str:
        """Whether devices may still enrol by it."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now():
            return "expired"
        return "used" if self.max_uses is not None and self.uses >= self.max_uses else "active"


class TokenMadeOut(TokenOut):
    """A token that was just made, as it is given to devices."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_SHOWN, "uses": 0, "token": "kG8v...9c2d.5f0c..."}]}
    )

    token: str = Field(
        description="The secret, a dot, and the SHA-256 of the first root; not shown again."
    )


class ReenrolIn(BaseModel):
    """A token to make, by which one device enrols once more, with a new key or its old one."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"expires_in_seconds": 86400}]}
    )

    expires_in_seconds: ExpiresIn = WEEK_SECONDS


class AllowedModelsIn(BaseModel):
    """The models that a device may say it runs."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"models": ["digits"]}, {"models": None}]}
    )

    models: Models


class PreauthorisationIn(BaseModel):
    """A device to expect: by its key, its name, or both."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXPECTED]})

    name: OneLine | None = Field(None, description="Whoever has a token can claim a name.")
    key: PublicKey | None = Field(None, description="The device's public key, in hex.")
    tags: Tags = Field(default_factory=set)
    models: Models = None

    @model_validator(mode="after")
    def _says_which(self) -> PreauthorisationIn:
        if self.name is None and self.key is None:
            raise ValueError("give a name, a key, or both")
        return self


class PreauthorisationOut(BaseModel):
    """A device that need not wait for an operator."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {**_EXPECTED, "id": 1, "device_id": None, "created_at": "2026-03-01T10:00:00Z"}
            ]
        }
    )

    id: int
    name: str | None
    key: str | None
    tags: list[str]
    models: list[str] | None = Field(description="What it may claim; null: what its token says.")
    device_id: str | None = Field(description="The device that came; null: it is expected.")
    created_at: datetime


class SignedReportOut(BaseModel):
    """A report as it came, with what proves who said it."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": 21,
                    "at": "2026-03-01T10:15:00Z",
                    "model": "digits",
                    "counter": 3,
                    "state": "committed",
                    "weights_digest": NEW,
                    "in_use": True,
                    "body": '{"counter":3,"model":"digits",...}',
                    "signature": "5VZDAMNgrHKQhuLMgG6CioSHfx64...",
                    "public_key": KEY,
                }
            ]
        },
    )

    id: int
    at: datetime
    model: str
    counter: int
    state: str
    weights_digest: str | None
    in_use: bool = Field(description="Whether it says what the device has in use now.")
    body: str = Field(description="What was signed, after the line that names the device.")
    signature: str = Field(description="Base64, Ed25519.")
    public_key: str = Field(description="Of the device, as it was then; hex.")
