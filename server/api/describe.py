"""The OpenAPI document: what the routes say of themselves, and what any route may answer.

A route lists the problems that are its own. Those that come from what surrounds it (the gate, the
limits, credentials, paging, idempotency) are added here, by what the route takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from server.api.gate import ALWAYS_OPEN
from server.api.problems import MEDIA_TYPE, answers
from server.auth.needs import NEEDS
from shared.wire import DESIRED_PATH

Operation = dict[str, Any]

PROBLEM = {"$ref": "#/components/schemas/Problem"}

#: What FastAPI must know itself: without a 422 it would document its own.
ANYWHERE = ("request.invalid", "service.internal")

HEAD_LIMITS = ("request.headers_too_large", "request.query_too_long")
OPERATORS = (
    "request.unauthorized",
    "request.forbidden_origin",
    "request.forbidden",
    "request.out_of_scope",
)
KEYS = ("request.key_invalid", "request.key_reused")

RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds until it may be tried again.",
        "schema": {"type": "integer"},
    }
}


def install(app: FastAPI) -> None:
    """Make the app describe itself so."""
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # FastAPI's own way


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete(path, method, operation)
    assert app.openapi_schema is not None
    return app.openapi_schema


def _complete(path: str, method: str, operation: Operation) -> None:
    """Add what may be answered besides; each problem under its own media type, with an example."""
    if (need := NEEDS.get(f"{method.upper()} {path}")) is not None:
        operation["description"] += f"\n\nNeeds the role `{need.role}`."
    found = operation["responses"]
    for status, response in answers(*_besides(path, method, operation)).items():
        known = found.setdefault(str(status), response | {"content": {MEDIA_TYPE: {}}})
        content = known.get("content", {})
        if MEDIA_TYPE in content:
            examples = content[MEDIA_TYPE].get("examples", {}) | _examples(response)
            content[MEDIA_TYPE]["examples"] = examples
            known["description"] = ", ".join(f"`{code}`" for code in examples)
        known.pop("model", None)
    for status, response in found.items():
        if MEDIA_TYPE in response.get("content", {}):
            examples = _examples(response)
            response["content"] = {MEDIA_TYPE: {"schema": PROBLEM, "examples": examples}}
            if status in ("429", "503"):
                response["headers"] = RETRY_AFTER
    operation["responses"] = dict(sorted(found.items()))


def _examples(response: dict[str, Any]) -> dict[str, Any]:
    examples: dict[str, Any] = response["content"][MEDIA_TYPE]["examples"]
    return examples


def _besides(path: str, method: str, operation: Operation) -> Iterator[str]:
    yield from HEAD_LIMITS
    if path in ALWAYS_OPEN:
        return
    yield "request.rate_limited"
    if path == DESIRED_PATH:
        yield "service.overloaded"
    yield "database.busy"
    if not path.startswith("/device/"):
        yield from OPERATORS
    if method != "get":
        yield "database.no_space"
    if "requestBody" in operation:
        yield "request.too_large"
    named = {parameter["name"] for parameter in operation.get("parameters", [])}
    if "cursor" in named:
        yield "request.bad_cursor"
    if "Idempotency-Key" in named:
        yield from KEYS
