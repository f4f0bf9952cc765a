"""Routes of refinements, packages and what is signed, under /api/v1."""

from __future__ import annotations

from fastapi import APIRouter

from server.auth import Operator
from server.publish.curve_routes import router as curves
from server.publish.package_routes import router as packages
from server.publish.refinement_routes import router as refinements
from server.publish.trust_routes import router as trust

router = APIRouter(dependencies=[Operator])
router.include_router(refinements)
router.include_router(curves)
router.include_router(packages)
router.include_router(trust)
