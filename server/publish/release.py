"""What may be installed: released versions only.

Where the release key lies on the server and WEFT_AUTO_RELEASE holds, a version is released by being
deployed or exported; else somebody signs it first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeAlias

from fastapi import Depends
from sqlalchemy.orm import Session

from server.api.context import SettingsDep, TrustDep
from server.errors import BadVersion
from server.tables import Version
from server.trust.repository import Trust

#: Has a version released, in the caller's write transaction, or raises BadVersion.
Release: TypeAlias = Callable[[Session, Version], None]


def require_released(trust: Trust, by_itself: bool, session: Session, version: Version) -> None:
    """Let a released version pass, and release it now where `by_itself` and the key allow it.

    Raises BadVersion `withdrawn`, `not_released`, and what `Trust.release` raises.
    """
    if version.is_released:
        return
    if version.withdrawn_at is not None:
        day = version.withdrawn_at.date()
        raise BadVersion("withdrawn", f"version {version.number} was withdrawn on {day}")
    if not by_itself or not trust.can_release(session):
        name = version.model.name
        raise BadVersion("not_released", f"version {version.number} of {name} is not released")
    trust.release(session, version)


async def _release(trust: TrustDep, settings: SettingsDep) -> Release:
    return partial(require_released, trust, settings.auto_release)


ReleaseDep = Annotated[Release, Depends(_release)]
