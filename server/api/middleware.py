"""What surrounds every request: its id, the size limit of its body, and the last safety net."""

from __future__ import annotations

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.problems import respond
from server.errors import BadRequest, ServerError
from shared.errors import WeftError

log = logging.getLogger("weft.http")

REQUEST_ID_HEADER = "X-Request-Id"

#: An id that a client or proxy may choose itself: harmless in logs and headers.
CHOSEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: Routes that stream their body to disk and bring their own limit.
STREAMED = re.compile(r"/api/v1/models/[^/]+/versions")


class Surroundings:
    """Gives each request an id, bounds its body, and turns what nobody caught into a problem."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        chosen = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = chosen if CHOSEN_ID.fullmatch(chosen) else secrets.token_hex(8)
        scope["request_id"] = request_id
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._bounded(scope, receive, answer)
        except Exception as error:
            if started:
                raise  # too late for another answer: the server cuts the connection
            log.exception("request %s: %s %s", request_id, scope["method"], scope["path"])
            ours = error if isinstance(error, WeftError) else _internal(error)
            await respond(Request(scope), ours)(scope, receive, answer)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if STREAMED.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self.max_body_bytes:
            error = self._too_large()
            await respond(Request(scope), error)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> BadRequest:
        return BadRequest("too_large", f"the body is above {self.max_body_bytes} bytes")


def _internal(error: Exception) -> ServerError:
    return ServerError("internal", f"{type(error).__name__} inside the server")
