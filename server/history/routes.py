"""Routes of the history under /api/v1: events and lineage."""

from __future__ import annotations

from fastapi import APIRouter

from server.auth import Operator
from server.history.event_routes import router as events
from server.history.lineage_routes import router as lineage

router = APIRouter(prefix="/api/v1", dependencies=[Operator])
router.include_router(events)
router.include_router(lineage)
