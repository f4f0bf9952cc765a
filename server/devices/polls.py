"""GET /device/v1/desired: what each device asks again and again.

1. The roster tells who asks, its generation, and whether something of it is held: one query.
2. A device that has heard of its generation, and waits for nothing, is told "not modified".
3. Any other is planned for, in a thread, and told.

The ETag is the installation's epoch with the device's generation: a restored backup brings old
generations back, but not the old epoch, so no device takes what it heard before for what is now.
"""

from __future__ import annotations

import json
import random

from fastapi import FastAPI, Request, Response
from sqlalchemy import Engine, select
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State

from server.api.direct import add_direct
from server.api.files import is_known
from server.api.problems import answers
from server.db import reading
from server.devices.desired import Answer, answer_poll
from server.devices.identity import bearer, device_scheme, identify
from server.devices.standing import HELD
from server.settings import Settings
from server.tables import Installation
from shared import wire

#: A device that waits for an operator asks so much more seldom.
HELD_FACTOR = 4.0

#: Longest interval until the next poll of a device for which a package is being built.
BUILDING_SECONDS = 5.0

HEADERS = {
    "ETag": {"description": "The device's generation.", "schema": {"type": "string"}},
    wire.POLL_INTERVAL_HEADER: {
        "description": "Seconds until the next poll.",
        "schema": {"type": "number"},
    },
}

IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "ETag of the last answer.",
}


def read_epoch(engine: Engine) -> str:
    """The installation's epoch, which stays the same while a server runs."""
    with reading(engine) as session:
        return session.execute(select(Installation.epoch)).scalar_one()


def etag_of(epoch: str, generation: int) -> str:
    """The ETag of a generation."""
    return f'"{epoch}-{generation}"'


def add_poll_route(app: FastAPI) -> None:
    """Add the route to the app, before any other: it is what nearly all requests are for."""
    add_direct(
        app,
        wire.DESIRED_PATH,
        get_desired,
        tags=["device plane"],
        summary="Ask what to run",
        response_model=wire.Desired,
        responses={
            200: {"headers": HEADERS},
            304: {"description": "Nothing has changed.", "headers": HEADERS},
            **answers("device.unauthorized", "database.unreachable"),
        },
        openapi_extra={
            "parameters": [IF_NONE_MATCH],
            "security": [{device_scheme.scheme_name: []}],
        },
    )


async def get_desired(request: Request) -> Response:
    """The versions that the device should run, and the packages that take it there."""
    state = request.app.state
    entry = await identify(request, bearer(request))  # 1
    state.presence.saw(entry.device_id)
    seconds = entry.poll_interval or state.settings.poll_interval
    if entry.standing in HELD:
        seconds *= HELD_FACTOR
    heard = request.headers.get("if-none-match")
    etag = etag_of(state.epoch, entry.generation)
    if not entry.waits and is_known(heard, etag):  # 2
        return Response(status_code=304, headers=_headers(state.settings, etag, seconds))
    answer = await run_in_threadpool(_plan, state, entry.device_id)  # 3
    if answer.wanted:
        seconds = min(seconds, BUILDING_SECONDS)
    etag = etag_of(state.epoch, answer.generation)
    headers = _headers(state.settings, etag, seconds)
    if is_known(heard, etag):
        return Response(status_code=304, headers=headers)
    body = _told(answer.desired)
    return Response(body, headers=headers, media_type="application/json")


def _plan(state: State, device_id: str) -> Answer:
    answer = answer_poll(state.engine, device_id, state.planning, state.trust)
    for wanted in answer.wanted:
        state.building.ask(wanted)
    return answer


def _told(desired: wire.Desired) -> bytes:
    """What is as it is by default is left out: every byte of it would go to every device."""
    told = {"models": [], **desired.model_dump(mode="json", exclude_defaults=True)}
    return json.dumps(told, separators=(",", ":")).encode()


def _headers(settings: Settings, etag: str, seconds: float) -> dict[str, str]:
    """Those of 200 and 304; the interval jitters, so that devices that started together part."""
    jitter = random.uniform(-settings.poll_jitter, settings.poll_jitter)  # noqa: S311 - no secret
    return {
        "ETag": etag,
        "Cache-Control": "private",
        wire.POLL_INTERVAL_HEADER: f"{seconds * (1 + jitter):.3f}",
    }
