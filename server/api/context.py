"""What routes ask for: the settings, the database, the blobs of the running app.

These functions are `async` because they do not wait: FastAPI would hand others to a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from server.settings import Settings
from server.storage.base import BlobStore
from server.tables import Version
from server.trust.repository import Trust


async def _settings(request: Request) -> Settings:
    return cast("Settings", request.app.state.settings)


async def _engine(request: Request) -> Engine:
    return cast("Engine", request.app.state.engine)


async def _blobs(request: Request) -> BlobStore:
    return cast("BlobStore", request.app.state.blobs)


async def _trust(request: Request) -> Trust:
    return cast("Trust", request.app.state.trust)


async def _uploaded(request: Request) -> Callable[[], None]:
    return cast("Callable[[], None]", request.app.state.uploaded)


async def _withdrawn(request: Request) -> Callable[[Session, Version], None]:
    return cast("Callable[[Session, Version], None]", request.app.state.withdrawn)


SettingsDep = Annotated[Settings, Depends(_settings)]
EngineDep = Annotated[Engine, Depends(_engine)]
BlobsDep = Annotated[BlobStore, Depends(_blobs)]
TrustDep = Annotated[Trust, Depends(_trust)]
#: To be called after an upload: what is made of a new version by itself begins.
UploadedDep = Annotated[Callable[[], None], Depends(_uploaded)]
#: To be called where a version is withdrawn, in the same transaction: what leads to it ends.
WithdrawnDep = Annotated[Callable[[Session, Version], None], Depends(_withdrawn)]
