"""Lineage as the API shows it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, JsonValue

DIGEST = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"

MADE: dict[str, JsonValue] = {
    "id": 1,
    "method": "ka",
    "dataset": "week-9",
    "evaluation_dataset": None,
}
SENT: dict[str, JsonValue] = {
    "id": 1,
    "base": 1,
    "method": "ka",
    "size_bytes": 9310,
    "state": "published",
}
LINK: dict[str, JsonValue] = {
    "number": 2,
    "weights_digest": DIGEST,
    "source": "refined",
    "parent": 1,
    "approximates": None,
    "created_at": "2026-03-01T10:05:00Z",
    "removed_at": None,
    "refinements": [MADE],
    "packages": [SENT],
}
RUN: dict[str, JsonValue] = {
    "device_id": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11",
    "device": "line3-cam1",
    "model": "digits",
    "version": 2,
    "weights_digest": DIGEST,
    "since": "2026-03-01T10:15:00Z",
    "until": None,
}


class MadeOut(BaseModel):
    """A refinement that led to a version."""

    model_config = ConfigDict(json_schema_extra={"examples": [MADE]})

    id: int
    method: str
    dataset: str = Field(description="What it learnt from.")
    evaluation_dataset: str | None = Field(description="What it was only measured on.")


class SentOut(BaseModel):
    """A package that leads to a version."""

    model_config = ConfigDict(json_schema_extra={"examples": [SENT]})

    id: int
    base: int | None = Field(description="Number of the version that it starts from.")
    method: str
    size_bytes: int
    state: str


class LinkOut(BaseModel):
    """A version in a lineage: how it was made, and how it is sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [LINK]})

    number: int
    weights_digest: str
    source: str
    parent: int | None
    approximates: int | None
    created_at: datetime
    removed_at: datetime | None = Field(description="When retention removed the weights.")
    refinements: list[MadeOut]
    packages: list[SentOut]


class LineageOut(BaseModel):
    """Where a version comes from, and what has been made of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "digits",
                    "version": LINK,
                    "datasets": ["week-9"],
                    "ancestors": [LINK | {"number": 1, "source": "uploaded", "parent": None}],
                    "descendants": [],
                }
            ]
        }
    )

    model: str
    version: LinkOut
    datasets: list[str] = Field(description="All that its weights learnt from, here.")
    ancestors: list[LinkOut] = Field(description="Newest first.")
    descendants: list[LinkOut] = Field(description="Oldest first.")


class RunOut(BaseModel):
    """The time during which a device had some weights in use."""

    model_config = ConfigDict(json_schema_extra={"examples": [RUN]})

    device_id: str
    device: str | None = Field(description="Name of the device, while it is enrolled.")
    model: str
    version: int | None
    weights_digest: str
    since: datetime
    until: datetime | None = Field(description="Null: until now.")
