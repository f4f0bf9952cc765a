"""Events as the API shows them, as exports and webhooks hold them: the same fields everywhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class EventOut(BaseModel):
    """Something that happened. The ids name what it is about, and outlive it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 41,
                    "at": "2026-03-01T10:15:00Z",
                    "kind": "assignment.committed",
                    "model_id": 1,
                    "version_id": 2,
                    "package_id": 1,
                    "refinement_id": None,
                    "device_id": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11",
                    "rollout_id": 2,
                    "assignment_id": 3,
                    "data": {"seconds": 1.4, "health": "unverified"},
                    "model": "digits",
                    "version": 2,
                    "actor": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11",
                    "address": "192.0.2.7",
                }
            ]
        },
    )

    id: int
    at: datetime
    kind: str
    model_id: int | None
    version_id: int | None
    package_id: int | None
    refinement_id: int | None
    device_id: str | None
    rollout_id: int | None
    assignment_id: int | None
    data: dict[str, Any]
    model: str | None = Field(description="Name of the model.")
    version: int | None = Field(description="Number of the version.")
    actor: str | None = Field(
        description="Who did it: name of an operator's key, id of a device, or `system`."
    )
    address: str | None = Field(description="From where; null where the server did it by itself.")
