"""Creates that can be repeated: `Idempotency-Key` makes the second request get the first answer.

The answer is stored in the transaction that creates the thing, so that there is never one without
the other. The same key with another request is refused. Failures are not stored: a request that
failed may be tried again with its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from server import logs
from server.errors import BadRequest
from server.tables import IdempotencyKey

MAX_KEY = 200


@dataclass(frozen=True)
class Once:
    """One request that should act once; without a key it simply acts."""

    key: str | None
    """Of whoever asks and no other: an answer may tell what others may not know."""
    method: str
    path: str
    sha256: str = ""

    def with_body(self, sha256: str) -> Once:
        """The same request, once the digest of its streamed body is known."""
        joined = hashlib.sha256((self.sha256 + sha256).encode()).hexdigest()
        return replace(self, sha256=joined)

    def known(self, session: Session) -> Response | None:
        """The stored answer, for a route whose work begins before its transaction.

        Raises BadRequest `key_reused`.
        """
        stored = self._stored(session)
        return None if stored is None else _response(stored.status, stored.body)

    def answer(
        self, session: Session, create: Callable[[], BaseModel], status: int = 201
    ) -> Response:
        """The stored answer, or that of `create()`, stored in this same transaction.

        Raises BadRequest `key_reused`.
        """
        stored = self._stored(session)
        if stored is None:
            body = create().model_dump_json(by_alias=True)
            self._store(session, status, body)
        else:
            status, body = stored.status, stored.body
        return _response(status, body)

    def _stored(self, session: Session) -> IdempotencyKey | None:
        if self.key is None:
            return None
        stored = session.get(IdempotencyKey, (self.key, self.method, self.path))
        if stored is not None and stored.request_sha256 != self.sha256:
            raise BadRequest("key_reused", "this Idempotency-Key was used for another request")
        return stored

    def _store(self, session: Session, status: int, body: str) -> None:
        if self.key is not None:
            session.add(
                IdempotencyKey(
                    key=self.key,
                    method=self.method,
                    path=self.path,
                    request_sha256=self.sha256,
                    status=status,
                    body=body,
                )
            )


def _response(status: int, body: str) -> Response:
    return Response(body, status, media_type="application/json")


def _check(key: str | None) -> None:
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise BadRequest("key_invalid", "the Idempotency-Key is empty, too long or not ASCII")


def _own(key: str | None) -> str | None:
    """What is stored of a key: as many bytes for each, and another one for each who asks."""
    return None if key is None else hashlib.sha256(f"{logs.who()[0]}\n{key}".encode()).hexdigest()


KeyHeader = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="The same key gets the same answer again."),
]


async def _once(request: Request, key: KeyHeader = None) -> Once:
    _check(key)
    sha = hashlib.sha256(request.url.query.encode() + b"\n" + await request.body())
    return Once(_own(key), request.method, request.url.path, sha.hexdigest())


async def _once_streamed(request: Request, key: KeyHeader = None) -> Once:
    _check(key)
    sha = hashlib.sha256(request.url.query.encode())
    return Once(_own(key), request.method, request.url.path, sha.hexdigest())


OnceDep = Annotated[Once, Depends(_once)]
#: For a route that streams its body, and adds its digest by `with_body`.
StreamedOnceDep = Annotated[Once, Depends(_once_streamed)]
