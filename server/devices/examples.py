"""What devices send and what is shown of them, for OpenAPI; `shared/wire.py` knows none."""

from __future__ import annotations

from typing import Any

from fastapi.openapi.models import Example

OLD = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
NEW = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"

ENROLMENT: dict[str, Example] = {
    "with the weights it was delivered with": {
        "value": {
            "name": "camera-17",
            "token": "the-enrolment-token",
            "key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "models": {"digits": {"slots": [OLD], "current": OLD}},
            "capabilities": {"formats": [1], "methods": {"ka": 1}, "dtypes": ["F32"]},
            "attributes": {"machine": "aarch64", "gpu": "orin"},
        }
    }
}

RENEWAL: dict[str, Example] = {
    "the first one": {
        "value": {"device_id": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11", "counter": 1},
    }
}

REPORT: dict[str, Example] = {
    "updated": {
        "value": {
            "counter": 3,
            "model": "digits",
            "assignment": 7,
            "result": "committed",
            "state": "committed",
            "weights_digest": NEW,
            "slots": [OLD, NEW],
            "version": 2,
            "seconds": 1.8,
            "health": "passed",
        }
    },
    "refused": {
        "value": {
            "counter": 4,
            "model": "digits",
            "assignment": 8,
            "result": "failed_no_change",
            "state": "failed",
            "weights_digest": OLD,
            "slots": [OLD],
            "version": 3,
            "error": {"code": "package.wrong_base", "message": "it starts from other weights"},
            "seconds": 0.4,
        }
    },
}

DEVICE: dict[str, Any] = {
    "id": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11",
    "name": "line3-cam1",
    "standing": "accepted",
    "tags": ["canary", "line3"],
    "allowed_models": None,
    "attributes": {"machine": "aarch64", "gpu": "orin"},
    "models": [
        {
            "model": "digits",
            "weights_digest": OLD,
            "version": 1,
            "slots": [{"weights_digest": OLD, "version": 1}],
            "state": "idle",
            "health": "passed",
            "assignment": {
                "id": 7,
                "rollout": 2,
                "version": 2,
                "state": "idle",
                "held": "over_budget",
                "held_detail": {"bytes": 44700000, "budget": 65536},
                "offered_at": None,
            },
        }
    ],
    "capabilities": {"wire": 1, "agent": "0.1.0"},
    "poll_interval": 300.0,
    "update_budget": 65536,
    "failures": 0,
    "generation": 4,
    "public_key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "token_expires_at": "2026-05-30T09:00:00Z",
    "enrolment_token_id": 3,
    "last_seen_at": "2026-03-01T10:15:00Z",
    "created_at": "2026-03-01T09:00:00Z",
}

GROUP: dict[str, Any] = {
    "name": "satellites",
    "filter": "tags==orbit;attr.link==uhf",
    "poll_interval": 5400.0,
    "update_budget": 65536,
    "created_at": "2026-03-01T09:00:00Z",
    "updated_at": "2026-03-01T09:00:00Z",
}
