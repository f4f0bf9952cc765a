"""The device plane of the server, over HTTP.

Every answer is bounded in size and time and checked against `shared.wire`. Raises ServerAway where
it is worth trying again later, Unreachable `refused` or `bad_answer` where it is not.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent import files
from edge_agent.config import Config
from edge_agent.connection import Answer, Connection
from edge_agent.errors import AgentError, ServerAway
from shared.errors import Unreachable
from shared.wire import (
    DESIRED_PATH,
    ENROL_PATH,
    POLL_INTERVAL_HEADER,
    REPORTS_PATH,
    Desired,
    Enrolled,
    Enrolment,
    Problem,
)

#: Of everything but packages.
MAX_ANSWER_BYTES, MAX_ANSWER_SECONDS = 1 << 20, 300.0
#: A server cannot silence a device for longer, nor make it poll in a tight loop.
MAX_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS = 86400.0, 0.05
_TRY_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})

_Message = TypeVar("_Message", bound=BaseModel)


@dataclass(frozen=True)
class Poll:
    """The answer to a poll: `desired` is None where nothing has changed since `etag`."""

    desired: Desired | None
    etag: str | None
    interval: float | None  # seconds, if the server said


class Identity(BaseModel):
    """Who the device is; the token is a secret, so the file is the owner's alone."""

    model_config = ConfigDict(frozen=True)
    server: str
    device_id: str
    token: str


def load_identity(path: Path) -> Identity | None:
    """The identity at `path`, None where there is none; raises AgentError."""
    try:
        return Identity.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise AgentError("state_damaged", f"{path} cannot be read") from error


def persist_identity(path: Path, identity: Identity) -> None:
    """Write the identity, readable by its owner only."""
    files.write(path, identity.model_dump_json().encode(), files.PRIVATE)


class DeviceApi:
    """One server, as a device sees it."""

    def __init__(
        self,
        config: Config,
        agent: str,
        count: Callable[[int], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._token: str | None = None
        self._connection = Connection(config, agent, count, beat)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def use_token(self, token: str) -> None:
        """Send `token` with all later requests."""
        self._token = token

    def enrol(self, enrolment: Enrolment) -> Enrolled:
        """Ask to be known; the enrolment token travels in the body."""
        body = enrolment.model_dump_json().encode()
        with self._request("POST", ENROL_PATH, body) as answer:
            return _parsed(answer, Enrolled)

    def desired(self, etag: str | None) -> Poll:
        """What the device should run, unless it is still what `etag` stood for."""
        with self._request("GET", DESIRED_PATH, if_none_match=etag) as answer:
            interval = _seconds(answer.headers.get(POLL_INTERVAL_HEADER.lower()))
            if answer.status == HTTPStatus.NOT_MODIFIED and etag:
                return Poll(None, etag, interval)
            return Poll(_parsed(answer, Desired), answer.headers.get("etag"), interval)

    def report(self, body: bytes) -> None:
        """Send a report, byte for byte as it was persisted."""
        with self._request("POST", REPORTS_PATH, body):
            pass

    @contextlib.contextmanager
    def package(self, url: str, etag: str, start: int, stop: int, size: int) -> Iterator[Answer]:
        """The answer to a request for bytes `start` to `stop` of a package, its body unread.

        It may bring all `size` bytes, as a server need not know ranges.
        """
        part = None if (start, stop) == (0, size) else f"bytes={start}-{_last(stop, size)}"
        with self._request(
            "GET", url, None, size, None, range=part, if_range=etag if part else None
        ) as answer:
            yield answer

    @contextlib.contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        body_bytes: int = MAX_ANSWER_BYTES,
        body_seconds: float | None = MAX_ANSWER_SECONDS,
        **extra: str | None,
    ) -> Iterator[Answer]:
        """Send a request; `extra` are headers, with `_` for `-`, left out where None."""
        headers = {key.replace("_", "-"): value for key, value in extra.items() if value}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["content-type"] = "application/json"
        with self._connection.exchange(
            method, path, headers, body, body_bytes, body_seconds
        ) as answer:
            _check_status(answer)
            yield answer


class Backoff:
    """Growing, jittered pauses after failures: a fleet must not come back all at once."""

    def __init__(self, first: float = 1.0, longest: float = 600.0) -> None:
        self._first, self._longest, self._failures = first, longest, 0
        self._random = random.Random()  # noqa: S311 - jitter, not secrecy

    def reset(self) -> None:
        """Begin again, after a success."""
        self._failures = 0

    def next(self, at_least: float | None = None) -> float:
        """Seconds to wait after one more failure, never less than the server's wish."""
        ceiling = min(self._longest, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(ceiling * self._random.uniform(0.5, 1.0), at_least or 0.0)


def _last(stop: int, size: int) -> str:
    """The last byte asked for; open where it is the last one of all, as most requests are."""
    return "" if stop == size else str(stop - 1)


def _check_status(answer: Answer) -> None:
    """Return where the answer is one that was asked for; else raise with the server's words.

    A refusal in other words than a Weft server's comes from somebody on the way, such as the
    portal of a network that wants a login: that passes, so it counts as the server being away.
    """
    status = answer.status
    if answer.is_success or status == HTTPStatus.NOT_MODIFIED:
        return
    problem = _problem(answer)
    told = f"the server answers {status}: {_said(problem) if problem else answer.reason[:200]}"
    if status in _TRY_LATER:
        raise ServerAway(told, _retry_after(answer.headers))
    if status == HTTPStatus.UNAUTHORIZED and answer.path != ENROL_PATH:
        raise AgentError("token_refused", told)
    if problem is None or not problem.code:
        raise ServerAway(told, code="bad_answer")
    raise Unreachable("refused", told)


def _problem(answer: Answer) -> Problem | None:
    """The server's own explanation, where it is one."""
    try:
        return Problem.model_validate_json(_body(answer))
    except (Unreachable, ValidationError):
        return None


def _said(problem: Problem) -> str:
    """An explanation in one line."""
    code = f" [{problem.code}]" if problem.code else ""
    return f"{problem.detail or problem.title}{code} {problem.todo}".strip()[:1000]


def _parsed(answer: Answer, kind: type[_Message]) -> _Message:
    encoding = answer.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Unreachable("bad_answer", f"{answer.path}: the answer is encoded as {encoding!r}")
    try:
        return kind.model_validate_json(_body(answer))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Unreachable("bad_answer", f"{answer.path}: {place}: {first['msg']}") from error


def _body(answer: Answer) -> bytes:
    body = bytearray()
    for piece in answer.body:
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise Unreachable("bad_answer", f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The wish to be left alone, given in seconds or as a date (RFC 9110, section 10.2.3).

    A date is taken by the clock of the server, which says its time too: a device may have none.
    """
    wish = headers.get("retry-after")
    try:
        until = parsedate_to_datetime(wish or "")
        wish = str((until - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (ValueError, TypeError):  # no date, or of two dates only one with its zone
        pass
    return _seconds(wish)


def _seconds(value: str | None) -> float | None:
    """A header as a number of seconds within bounds; None for anything else."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    if not seconds >= 0:  # also NaN
        return None
    return min(max(seconds, MIN_INTERVAL_SECONDS), MAX_INTERVAL_SECONDS)
