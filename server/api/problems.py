"""Errors as RFC 9457 problem+json.

Every answer that is no success has this body: `type`, `title`, `status`, `detail`, and our own
`code` (stable, dotted), `todo` (what to do about it) and `request_id` (to find it in the log).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server import errors as server_errors
from server.errors import BadRequest
from shared import errors as shared_errors
from shared.errors import UserError, WeftError
from shared.wire import Problem

MEDIA_TYPE = "application/problem+json"

#: Codes whose status does not follow from the rule in `status_of`.
STATUS: dict[str, int] = {
    "request.method_not_allowed": 405,
    "request.bad_cursor": 400,
    "request.incomplete": 400,
    "request.key_invalid": 400,
    "request.key_reused": 422,
    "request.too_large": 413,
    "request.headers_too_large": 431,
    "request.query_too_long": 414,
    "request.rate_limited": 429,
    "request.unauthorized": 401,
    "request.forbidden_origin": 403,
    "request.forbidden": 403,
    "request.out_of_scope": 403,
    "request.wrong_type": 415,
    "request.bad_range": 416,
    "version.exists": 409,
    "version.removed": 410,
    "version.not_released": 409,
    "version.withdrawn": 409,
    "update.removed": 410,
    "webhook.delivery_not_found": 404,
    "webhook.too_many": 409,
    "refinement.not_cancellable": 409,
    "refinement.no_curve": 404,
    "rollout.not_active": 409,
    "rollout.wrong_state": 409,
    "rollout.nothing_to_retry": 409,
    "rollout.no_previous_version": 409,
    "rollout.needs_rollback": 409,
    "device.enrolment_closed": 403,
    "device.bad_enrolment_token": 403,
    "device.enrolment_token_expired": 403,
    "device.enrolment_token_used": 403,
    "device.enrolment_token_revoked": 403,
    "device.token_not_found": 404,
    "device.preauthorised": 409,
    "device.preauthorisation_not_found": 404,
    "device.unsigned": 403,
    "device.bad_signature": 403,
    "device.key_unknown": 403,
    "device.key_taken": 409,
    "device.key_retired": 403,
    "device.model_not_allowed": 403,
    "device.not_accepted": 403,
    "device.cloned": 403,
    "device.decommissioned": 403,
    "device.unauthorized": 401,
    "device.counter_reused": 409,
    "device.unknown_assignment": 404,
    "device.package_not_found": 404,
    "device.model_not_found": 404,
    "group.circular": 409,
    "group.in_use": 409,
    "storage.no_space": 507,
    "database.no_space": 507,
    "database.busy": 503,
    "service.overloaded": 503,
    "service.not_ready": 503,
    "database.unreachable": 503,
    "blob.unreachable": 503,
}


def status_of(error: type[WeftError], code: str) -> int:
    """The HTTP status of a dotted code: by the table, else by its last part and its root."""
    if code in STATUS:
        return STATUS[code]
    by_part = {"not_found": 404, "exists": 409}
    return by_part.get(code.rpartition(".")[2], 422 if issubclass(error, UserError) else 500)


def respond(
    request: Request, error: WeftError, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that tells `error`."""
    status = status_of(type(error), error.code)
    problem = Problem(
        type=f"urn:weft:problem:{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        todo=error.todo,
        request_id=request.scope.get("request_id", ""),
    )
    extra = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        extra["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.model_dump(), status, extra, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make the app answer every error as a problem."""
    app.add_exception_handler(WeftError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def _on_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, WeftError)
    return respond(request, error, getattr(error, "headers", None))


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(map(str, e['loc']))}: {str(e['msg']).removeprefix('Value error, ')}"
        for e in error.errors()[:20]
    ]
    return respond(request, BadRequest("invalid", "; ".join(found)))


def _on_http(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's own refusals; an error of ours that it wrapped comes out again."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, WeftError):
        return _on_ours(request, error.__cause__)
    path = request.url.path
    if error.status_code == HTTPStatus.NOT_FOUND:
        return respond(request, BadRequest("not_found", f"nothing at {path}"))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        ours = BadRequest("method_not_allowed", f"{path} does not offer {request.method}")
        return respond(request, ours, error.headers)
    return respond(request, BadRequest("invalid", str(error.detail)))


def _classes() -> dict[str, type[WeftError]]:
    modules = (shared_errors, server_errors)
    found = [c for m in modules for c in vars(m).values() if isinstance(c, type)]
    return {c.area: c for c in found if issubclass(c, WeftError)}


def answers(*codes: str) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may answer with these problem codes, with an example each."""
    classes = _classes()
    documented: dict[int, dict[str, Any]] = {}
    for code in codes:
        area, _, part = code.partition(".")
        status = status_of(classes[area], code)
        example = {
            "type": f"urn:weft:problem:{code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": "what was found",
            "code": code,
            "todo": classes[area].codes[part],
            "request_id": "5f0c1e0b7d0f4c0e",
        }
        documented.setdefault(status, {})[code] = {"value": example}
    return {
        status: {
            "description": ", ".join(f"`{code}`" for code in examples),
            "model": Problem,
            "content": {MEDIA_TYPE: {"examples": examples}},
        }
        for status, examples in documented.items()
    }
