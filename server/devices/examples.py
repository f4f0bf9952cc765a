"""What devices send, as OpenAPI shows it; `shared/wire.py` itself knows no OpenAPI."""

from __future__ import annotations

from fastapi.openapi.models import Example

OLD = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
NEW = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"

ENROLMENT: dict[str, Example] = {
    "with the weights it was delivered with": {
        "value": {
            "name": "camera-17",
            "token": "the-enrolment-token",
            "models": {"digits": {"slots": [OLD], "current": OLD}},
            "capabilities": {"formats": [1], "methods": {"ka": 1}, "dtypes": ["F32"]},
        }
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
