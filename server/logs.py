"""Logs on stderr, as text or one JSON object a line, with the id of the request they belong to.

What a request is about (`Trace`) travels in a context variable, which worker threads inherit; so
whatever any module logs while it serves a request carries the request's id. Secrets never come
here: no header, no body and no query is logged.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from server.auth.roles import Principal

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(slots=True)
class Trace:
    """What is known of the request being served; routes fill it in as they learn."""

    request_id: str
    actor: str | None = None
    """The device's id, or the name of the operator's key."""
    address: str | None = None
    """From where it came; behind a proxy that is trusted, what the proxy says."""
    principal: Principal | None = None
    """The operator who sent it."""
    sees_all: bool = False
    """Whether what the operator is held to counts for nothing now."""
    package_method: str | None = None
    """Of the package whose bytes are the answer."""


_trace: ContextVar[Trace | None] = ContextVar("weft_trace", default=None)

begin = _trace.set


def current() -> Trace | None:
    """The trace of the request that this thread or task serves."""
    return _trace.get()


def acts(actor: str, principal: Principal | None = None) -> None:
    """Note who sent the request being served; `principal`, where it is an operator."""
    trace = _trace.get()
    if trace is not None:
        trace.actor, trace.principal = actor, principal


@contextmanager
def beyond_scope() -> Iterator[None]:
    """What happens inside sees all, whatever the key of the request is held to.

    For what follows from a request: others' rollouts must notice that a device has changed.
    """
    with _changed(sees_all=True):
        yield


@contextmanager
def by_itself() -> Iterator[None]:
    """What happens inside is the server's own decision, whoever's request it follows from."""
    with _changed(principal=None, actor=None, address=None):
        yield


@contextmanager
def _changed(**changes: Any) -> Iterator[None]:
    trace = _trace.get()
    if trace is None:
        yield
        return
    before = _trace.set(replace(trace, **changes))
    try:
        yield
    finally:
        _trace.reset(before)


def who() -> tuple[str, str | None]:
    """Who acts, and from which address: a key's name, a device's id, or `system` without one."""
    trace = _trace.get()
    if trace is None or trace.actor is None:
        return "system", None
    return trace.actor, trace.address and trace.address[:64]


def models_seen() -> tuple[str, ...] | None:
    """Names of the models that whoever asks may see; None: all."""
    trace = _trace.get()
    if trace is None or trace.principal is None or trace.sees_all:
        return None
    return trace.principal.models


def sends_package(method: str) -> None:
    """Note that the answer is a package made by `method`, so that its bytes are counted."""
    trace = _trace.get()
    if trace is not None:
        trace.package_method = method


class _Lines(logging.Formatter):
    """What both formats share: UTC times, and fields given by `extra={"fields": {...}}`."""

    converter = staticmethod(time.gmtime)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The request's id, then the record's own fields."""
        trace = _trace.get()
        given = getattr(record, "fields", {})
        return ({"request_id": trace.request_id} if trace else {}) | given

    def moment(self, record: logging.LogRecord) -> str:
        """RFC 3339, to the millisecond."""
        return f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"


class TextLines(_Lines):
    """`2026-03-01T10:00:00.123Z WARNING weft.duties: text request_id=... name=value`.

    Fields that the message itself says, named by `extra={"said": {...}}`, are not told twice.
    """

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102
        record.message = record.getMessage()
        head = f"{self.moment(record)} {record.levelname} {record.name}: {record.message}"
        said = getattr(record, "said", ())
        rest = (f"{k}={v}" for k, v in self.fields(record).items() if k not in said)
        line = " ".join([head, *rest])
        # Control characters in what clients send must not make up lines or colours.
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return f"{line}\n{trace}" if trace else line


class JsonLines(_Lines):
    """One JSON object a line; a traceback is one of its fields."""

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102
        line = {
            "at": self.moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        } | self.fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(form: LogFormat, level: LogLevel) -> None:
    """Send the log of this process, Uvicorn's too, to stderr; other libraries from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if level in ("debug", "info") else level.upper())
    for name in ("weft", "server"):
        logging.getLogger(name).setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
