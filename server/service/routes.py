"""/healthz, /readyz, /metrics and /docs: for those who run the server."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict

from server.api.problems import answers
from server.auth import Operator
from server.metrics import REGISTRY
from server.service.readiness import Readiness
from server.service.reference import reference_page

router = APIRouter(tags=["service"])

DOCS_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Health(BaseModel):
    """The server answers."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ok", "version": "0.1.0"}]}
    )

    status: str = "ok"
    version: str


class Ready(BaseModel):
    """The server can do its work."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "checked": ["database", "blobs"]}]}
    )

    status: str = "ready"
    checked: list[str]


async def _readiness(request: Request) -> Readiness:
    return cast("Readiness", request.app.state.readiness)


async def _registry(request: Request) -> CollectorRegistry:
    return cast("CollectorRegistry", request.app.state.registry)


@router.get("/healthz", summary="Ask whether it lives", responses=answers("service.internal"))
async def get_health() -> Health:
    """Answer at once, whatever the state of database and store: the process lives."""
    return Health(version=version("weft"))


@router.get(
    "/readyz", summary="Ask whether it can do its work", responses=answers("service.not_ready")
)
def get_ready(readiness: Annotated[Readiness, Depends(_readiness)]) -> Ready:
    """Answer whether the database has the right schema and the blob store takes files.

    For load balancers: cheap, and asked anew at most once a second.
    """
    return Ready(checked=readiness.check())


@router.get(
    "/metrics",
    summary="Get all figures for Prometheus",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "Prometheus text format.",
            "content": {"text/plain": {"example": "weft_devices_enrolled 2.0\n"}},
        },
        **answers("request.unauthorized", "request.forbidden_origin"),
    },
    dependencies=[Operator],
)
def get_metrics(registry: Annotated[CollectorRegistry, Depends(_registry)]) -> PlainTextResponse:
    """The figures of this process, and of the fleet as the database knows it."""
    text = generate_latest(REGISTRY) + generate_latest(registry)
    return PlainTextResponse(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/docs", include_in_schema=False)
def get_docs(request: Request) -> HTMLResponse:
    """The API's description as one page that needs nothing from elsewhere."""
    headers = {"Content-Security-Policy": DOCS_POLICY}
    return HTMLResponse(reference_page(request.app.openapi()), headers=headers)
