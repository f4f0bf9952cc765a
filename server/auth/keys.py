"""API keys: made, found by their text, revoked.

    weft_0c5e1d9a7b32_Jx7...43 characters     what its holder keeps; shown once

The first part finds the row, the other is compared in constant time. Both are checked whatever the
first finds, so that time does not tell which keys there are.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from server import logs
from server.auth.roles import RESERVED, Principal, Role
from server.auth.secrets import new_token, same_hash, token_hash
from server.db import reading
from server.errors import BadAccess, BadGroup, BadRequest
from server.history.events import record
from server.tables import ApiKey, Group, now

KEY: Final = re.compile(r"weft_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")

#: As it stands in history, in addresses and in filters without quotes.
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"

#: Devices stand in history by their ids.
DEVICE_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

#: Compared with where no row was found.
NOBODYS: Final = token_hash("")


@dataclass(frozen=True)
class Wanted:
    """A key to be made."""

    name: str
    role: Role
    models: list[str] | None = None
    groups: list[str] | None = None
    """Names of groups."""
    expires_at: datetime | None = None


def create_key(session: Session, wanted: Wanted, by: str) -> tuple[ApiKey, str]:
    """Add a key; its row, and its text, which nothing keeps.

    Raises BadAccess `exists`, `reserved`, `not_held`, `past`, BadGroup `not_found`.
    """
    _check(session, wanted)
    key_id, secret = secrets.token_hex(6), new_token()
    key = ApiKey(
        id=key_id,
        name=wanted.name,
        secret_hash=token_hash(secret),
        role=wanted.role,
        models=None if wanted.models is None else sorted(set(wanted.models)),
        groups=None if wanted.groups is None else _ids(session, wanted.groups),
        created_by=by,
        expires_at=wanted.expires_at,
    )
    session.add(key)
    session.flush()
    record(session, "access.key_created", _told(wanted))
    return key, f"weft_{key_id}_{secret}"


def revoke_key(session: Session, name: str) -> ApiKey:
    """Have a key open nothing from now on; again changes nothing. Raises BadAccess `not_found`."""
    key = find_named(session, name)
    if key.revoked_at is None:
        key.revoked_at = now()
        record(session, "access.key_revoked", {"key": name})
    return key


def find_named(session: Session, name: str) -> ApiKey:
    """The key of that name. Raises BadAccess `not_found`."""
    key = session.scalar(select(ApiKey).where(ApiKey.name == name))
    if key is None:
        raise BadAccess("not_found", f"there is no key {name[:64]!r}")
    return key


def find_key(engine: Engine, text: str) -> tuple[str, Principal]:
    """Id of the key with this text, and who has it. Raises BadRequest `unauthorized`."""
    match = KEY.fullmatch(text)
    key_id, secret = match.groups() if match else ("", "")
    with reading(engine) as session:
        key = session.get(ApiKey, key_id)
    same = same_hash(token_hash(secret), key.secret_hash if key else NOBODYS)
    if key is None or not match or not same:
        raise BadRequest("unauthorized", "nobody has this key")
    if key.revoked_at is not None:
        raise BadRequest("unauthorized", f"the key {key.name} was revoked")
    if key.expires_at is not None and key.expires_at <= now():
        moment = key.expires_at.isoformat(timespec="seconds")
        raise BadRequest("unauthorized", f"the key {key.name} expired at {moment}")
    return key.id, principal_of(key)


def principal_of(key: ApiKey) -> Principal:
    """Who has a key."""
    models, groups = key.models, key.groups
    return Principal(
        key.name,
        cast("Role", key.role),
        None if models is None else tuple(models),
        None if groups is None else tuple(groups),
        key.id,
    )


def still_opens(session: Session) -> bool:
    """Whether the key of the request that is being served has not ended since it was let in.

    For answers that go on: to be asked after what they are to tell was read, so that nothing is
    told that came after the end of the key.
    """
    trace = logs.current()
    principal = trace.principal if trace is not None else None
    if principal is None or principal.key_id is None:
        return True
    key = session.get(ApiKey, principal.key_id)
    if key is None or key.revoked_at is not None:
        return False
    return key.expires_at is None or key.expires_at > now()


def _check(session: Session, wanted: Wanted) -> None:
    name = wanted.name
    if name in RESERVED or DEVICE_ID.fullmatch(name):
        raise BadAccess("reserved", f"{name!r} stands for somebody else in history")
    if session.scalar(select(ApiKey.id).where(ApiKey.name == name)) is not None:
        raise BadAccess("exists", f"there is, or was, a key {name!r}")
    if wanted.role == "admin" and (wanted.models is not None or wanted.groups is not None):
        raise BadAccess("not_held", "an admin makes keys, and so cannot be held to anything")
    if wanted.expires_at is not None and wanted.expires_at <= now():
        raise BadAccess("past", f"{wanted.expires_at.isoformat()} is over")


def _ids(session: Session, names: list[str]) -> list[int]:
    found = dict(session.execute(select(Group.name, Group.id).where(Group.name.in_(names))).all())
    for name in names:
        if name not in found:
            raise BadGroup("not_found", f"there is no group {name[:100]!r}")
    return sorted(found.values())


def _told(wanted: Wanted) -> dict[str, Any]:
    until = wanted.expires_at and wanted.expires_at.isoformat()
    held = {"models": wanted.models, "groups": wanted.groups}
    return {"key": wanted.name, "role": wanted.role, "expires_at": until, **held}
