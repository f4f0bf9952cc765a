"""The dependency of every route of operators: who asks, and whether they may.

1. Without keys (WEFT_REQUIRE_KEYS=false, on loopback only) whoever is on this machine may do all.
   Even there a web page in a browser must not reach the server: a foreign `Host` (DNS rebinding)
   or `Origin` (a form on another site) is refused.
2. Else a key is needed: WEFT_ADMIN_KEY, or one of the table.
3. Its role must be the one that the route needs, and so must be what it is held to.

From here on the request's trace names who asks, for the log, for history, and for what they see.
"""

from __future__ import annotations

from typing import Annotated, cast
from urllib.parse import SplitResult, urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from server import logs, metrics
from server.api.context import SettingsDep
from server.auth import scope as scope  # what a principal is held to, from its import on
from server.auth.keys import find_key
from server.auth.needs import NEEDS, Need
from server.auth.roles import DECLARED, LOCAL, Principal
from server.auth.secrets import same_secret
from server.auth.uses import KeyUses
from server.errors import BadRequest
from server.settings import Settings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

Credentials = HTTPAuthorizationCredentials | None

key_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="A key that `weft access create` made, or WEFT_ADMIN_KEY of the server.",
)


async def require_operator(
    request: Request,
    settings: SettingsDep,
    credentials: Annotated[Credentials, Security(key_scheme)],
) -> Principal:
    """Let operators pass whose role is the one that the route needs.

    Raises BadRequest `unauthorized`, `forbidden_origin`, `forbidden`, `out_of_scope`.
    """
    if settings.require_keys:
        principal = await _of_key(request, settings, credentials)
    else:
        _refuse_strangers(request)
        principal = LOCAL
    logs.acts(principal.name, principal)
    _require(principal, request)
    return principal


async def _of_key(request: Request, settings: Settings, credentials: Credentials) -> Principal:
    if credentials is None:
        raise _refused("missing", BadRequest("unauthorized", "the management plane needs a key"))
    given, declared = credentials.credentials, settings.admin_key
    if declared is not None and same_secret(given, declared.get_secret_value()):
        return DECLARED
    engine = cast("Engine", request.app.state.engine)
    try:
        key_id, principal = await run_in_threadpool(find_key, engine, given)
    except BadRequest as error:
        raise _refused("key", error) from None
    cast("KeyUses", request.app.state.key_uses).used(key_id)
    return principal


def _require(principal: Principal, request: Request) -> None:
    """Raise BadRequest `forbidden`, `out_of_scope` where the route is not for this one."""
    route = f"{request.method} {request.scope['route'].path}"
    need = NEEDS.get(route)
    if need is None:  # fail closed: whoever adds a route says what it needs
        raise _refused("role", BadRequest("forbidden", f"no role is enough for {route}"))
    if not principal.is_at_least(need.role):
        text = f"this needs the role {need.role}; {principal.name} is {principal.role}"
        raise _refused("role", BadRequest("forbidden", text))
    if principal.held_to and not principal.held_to & need.limited_by:
        raise _refused("scope", BadRequest("out_of_scope", _beyond(principal, need)))


def _beyond(principal: Principal, need: Need) -> str:
    held = " and ".join(sorted(principal.held_to))
    wanted = " or ".join(sorted(need.limited_by))
    rest = f"this needs one held to {wanted}, or to nothing" if wanted else "this reaches beyond"
    return f"{principal.name} is held to some {held}; {rest}"


def _refused(reason: str, error: BadRequest) -> BadRequest:
    metrics.KEYS_REFUSED.labels(reason).inc()
    return error


def _refuse_strangers(request: Request) -> None:
    host = request.headers.get("host", "")
    origin = request.headers.get("origin", f"http://{host}")
    if _split(f"http://{host}").hostname not in LOOPBACK_NAMES:
        raise BadRequest("forbidden_origin", f"{host[:80]!r} is not this machine's loopback name")
    if _split(origin).netloc != host:
        raise BadRequest("forbidden_origin", f"a page of {origin[:80]!r} may not use this server")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise BadRequest("forbidden_origin", f"{url[:80]!r} is no address") from error


Operator = Depends(require_operator)
