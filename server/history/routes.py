"""Routes of the history under /api/v1: events, lineage, webhooks."""

from __future__ import annotations

from fastapi import APIRouter

from server.auth import Operator
from server.history.event_routes import router as events
from server.history.lineage_routes import router as lineage
from server.history.webhook_routes import router as webhooks

router = APIRouter(dependencies=[Operator])
router.include_router(events)
router.include_router(lineage)
router.include_router(webhooks)
