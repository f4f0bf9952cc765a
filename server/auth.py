"""Who may ask: operators on the management plane (devices on theirs: `devices/identity.py`).

Without WEFT_ADMIN_KEY the management plane is open, and then only on loopback (the settings refuse
another address). Even there a web page in a browser on this machine must not reach it: a foreign
`Host` (DNS rebinding) or `Origin` (a form on another site) is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from server import logs
from server.api.context import SettingsDep
from server.errors import BadRequest

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

Credentials = HTTPAuthorizationCredentials | None

admin_scheme = HTTPBearer(
    auto_error=False, scheme_name="admin key", description="WEFT_ADMIN_KEY of the server."
)


def new_token() -> str:
    """A secret of 256 bits for a device."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a token; tokens are random, so a plain hash cannot be reversed."""
    return hashlib.sha256(token.encode()).hexdigest()


def same_secret(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that says nothing about where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())


async def require_operator(
    request: Request,
    settings: SettingsDep,
    credentials: Annotated[Credentials, Security(admin_scheme)],
) -> None:
    """Let operators pass. Raises BadRequest `unauthorized` or `forbidden_origin`."""
    if settings.admin_key is None:
        _refuse_strangers(request)
        logs.acts("operator")
        return
    wanted = settings.admin_key.get_secret_value()
    if credentials is None or not same_secret(credentials.credentials, wanted):
        raise BadRequest("unauthorized", "the management plane needs its key")
    logs.acts("operator")


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
