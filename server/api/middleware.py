"""What surrounds every request, from its first header to the last byte of its answer.

1. It gets an id and a trace for the log.
2. The gate looks at its head.
3. A JSON body is read whole and checked.
4. The app answers; what nobody caught becomes a problem.
5. The answer is counted, timed, and written to the log.

Plain ASGI: every poll passes here, and one layer of Starlette's own kind costs more than all this.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import logs
from server.api.access import note_answer
from server.api.bodies import BodyRoom, check_json, too_large
from server.api.gate import Gate, Overloaded
from server.api.problems import respond
from server.errors import BadRequest, ServerError
from shared.errors import WeftError

log = logging.getLogger("weft.http")

Headers: TypeAlias = list[tuple[bytes, bytes]]

REQUEST_ID_HEADER = "X-Request-Id"

#: An id that a client or proxy may choose itself: harmless in logs and headers.
CHOSEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

#: Routes that stream their body to disk and bring their own limit.
STREAMED = re.compile(r"/api/v1/models/[^/]+/versions")


class Head:
    """What matters here of a request's headers, found in one pass over them."""

    __slots__ = ("authorization", "chosen_id", "has_body", "length", "size")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.size, self.authorization, self.chosen_id = 0, b"", b""
        self.length, self.has_body = b"0", False
        for name, value in headers:
            self.size += len(name) + len(value)
            if name == b"authorization":
                self.authorization = value
            elif name == b"x-request-id":
                self.chosen_id = value
            elif name == b"content-length":
                self.length, self.has_body = value, True
            elif name == b"transfer-encoding":
                self.has_body = True


#: What browsers are told of all but the device plane, unless a route says otherwise: that these
#: answers are no pages, belong in no frame of another site, and are kept nowhere.
GUARDED = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
#: Added where a proxy that is trusted has terminated TLS.
OVER_TLS = (b"strict-transport-security", b"max-age=31536000")


class Answer:
    """The way out of one request: adds its id, and sees what is sent."""

    __slots__ = ("_gate", "_id", "_scope", "_send", "_waiting", "sent", "status")

    def __init__(self, send: Send, gate: Gate, request_id: str, scope: Scope) -> None:
        self._send, self._gate, self._scope = send, gate, scope
        self._id = (b"x-request-id", request_id.encode())
        self._waiting = True
        self.status, self.sent = 0, 0
        gate.in_work += 1

    async def __call__(self, message: Message) -> None:  # noqa: D102 - ASGI's `send`
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), self._id]}
            if not self._scope["path"].startswith("/device/"):
                message["headers"] += _guards(message["headers"], self._scope)
            self.end_of_work()
        await self._send(message)
        self.sent += len(message.get("body", b""))

    def end_of_work(self) -> None:
        """Count the request as answered; once is enough."""
        if self._waiting:
            self._waiting = False
            self._gate.in_work -= 1


def _guards(given: Headers, scope: Scope) -> Headers:
    """The headers for browsers that an answer does not have."""
    names = {name.lower() for name, _ in given}
    missing = [header for header in GUARDED if header[0] not in names]
    return [*missing, OVER_TLS] if scope.get("scheme") == "https" else missing


class Surroundings:
    """The one middleware; see the module's docstring for what it does."""

    def __init__(self, app: ASGIApp, gate: Gate, max_body_bytes: int) -> None:
        self.app = app
        self.gate = gate
        self._max_body_bytes = max_body_bytes
        self._room = BodyRoom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        head = Head(scope["headers"])  # 1.
        chosen = CHOSEN_ID.fullmatch(head.chosen_id)
        request_id = head.chosen_id.decode() if chosen else secrets.token_hex(8)
        scope["request_id"] = request_id
        client = scope.get("client")
        trace = logs.Trace(request_id, address=client[0] if client else None)
        logs.begin(trace)
        answer = Answer(send, self.gate, request_id, scope)
        try:
            await self._serve(scope, head, receive, answer)
        finally:
            answer.end_of_work()
            note_answer(scope, trace, answer.status, answer.sent, time.perf_counter() - started)

    async def _serve(self, scope: Scope, head: Head, receive: Receive, answer: Answer) -> None:
        refusal = self.gate.refusal(scope, head.size, head.authorization)  # 2.
        if refusal is not None:
            await _tell(refusal, scope, receive, answer)
            return
        try:
            if head.has_body and not STREAMED.fullmatch(scope["path"]):
                receive = await self._checked(head, receive)  # 3.
            await self.app(scope, receive, answer)  # 4.
        except ClientDisconnect:
            pass  # nobody is left to be told
        except Exception as error:
            if answer.status:
                log.exception("the answer broke off: %s %s", scope["method"], scope["path"])
                raise  # too late for another answer: the server cuts the connection
            if not isinstance(error, (BadRequest, Overloaded)):
                log.exception("%s %s", scope["method"], scope["path"])
            ours = error if isinstance(error, WeftError) else _internal(error)
            await _tell(ours, scope, receive, answer)

    async def _checked(self, head: Head, receive: Receive) -> Receive:
        """Read and check the body; what gives it to the app once more."""
        if not head.length.isdigit() or int(head.length[:20]) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        body = await self._room.read(receive, self._max_body_bytes)
        check_json(body)
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again


async def _tell(error: WeftError, scope: Scope, receive: Receive, send: Send) -> None:
    headers = getattr(error, "headers", None)
    await respond(Request(scope), error, headers)(scope, receive, send)


def _internal(error: Exception) -> ServerError:
    return ServerError("internal", f"{type(error).__name__} inside the server")
