"""The admin key with which a server begins, and another one for whoever has lost it.

Whoever may read the server's database file, or has its password, may do all to it anyhow: so a new
admin key can be made there, without asking anybody.
"""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from server.auth.keys import Wanted, create_key
from server.auth.roles import SYSTEM
from server.db import writing
from server.settings import Settings
from server.tables import ApiKey

NAME = "first"


def first_key(engine: Engine, settings: Settings) -> str | None:
    """The text of a new admin key, where keys are required and there has never been one."""
    if not settings.require_keys or settings.admin_key is not None:
        return None
    with writing(engine) as session:
        if session.scalar(select(func.count()).select_from(ApiKey)):
            return None
        return create_key(session, Wanted(NAME, "admin"), SYSTEM)[1]


def another_key(engine: Engine, name: str) -> str:
    """The text of a new admin key. Raises BadAccess `exists`, `reserved`."""
    with writing(engine) as session:
        return create_key(session, Wanted(name, "admin"), SYSTEM)[1]
