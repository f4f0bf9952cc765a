"""The device plane of the server, over HTTP.

Every answer is bounded in size and checked against `shared.wire`; redirects are not followed, so
that the token goes nowhere else. Raises ServerAway where it is worth trying again later,
Unreachable `refused` or `bad_answer` where it is not.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent import files
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

MAX_ANSWER_BYTES = 1 << 20
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

    def __init__(self, server: str, timeout: float, agent: str) -> None:
        self._token: str | None = None
        self._client = httpx.Client(
            base_url=server,
            timeout=timeout,
            follow_redirects=False,
            headers={"user-agent": agent, "accept-encoding": "identity"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def use_token(self, token: str) -> None:
        """Send `token` with all later requests."""
        self._token = token

    def enrol(self, enrolment: Enrolment) -> Enrolled:
        """Ask to be known; the enrolment token travels in the body."""
        body = enrolment.model_dump_json().encode()
        with self._request("POST", ENROL_PATH, body) as response:
            return _parsed(response, Enrolled)

    def desired(self, etag: str | None) -> Poll:
        """What the device should run, unless it is still what `etag` stood for."""
        with self._request("GET", DESIRED_PATH, if_none_match=etag) as response:
            interval = _seconds(response.headers.get(POLL_INTERVAL_HEADER))
            if response.status_code == httpx.codes.NOT_MODIFIED:
                return Poll(None, etag, interval)
            return Poll(_parsed(response, Desired), response.headers.get("etag"), interval)

    def report(self, body: bytes) -> None:
        """Send a report, byte for byte as it was persisted."""
        with self._request("POST", REPORTS_PATH, body):
            pass

    @contextlib.contextmanager
    def package(
        self, url: str, etag: str, start: int = 0, stop: int | None = None
    ) -> Iterator[httpx.Response]:
        """The answer to a request for the package from `start` up to `stop`, its body unread."""
        last = "" if stop is None else stop - 1
        whole = start == 0 and stop is None
        asked, condition = (None, None) if whole else (f"bytes={start}-{last}", etag)
        with self._request("GET", url, range=asked, if_range=condition) as response:
            yield response

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, body: bytes | None = None, **extra: str | None
    ) -> Iterator[httpx.Response]:
        """Send a request; `extra` are headers, with `_` for `-`, left out where None."""
        headers = {key.replace("_", "-"): value for key, value in extra.items() if value}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            with self._client.stream(method, path, content=body, headers=headers) as response:
                _check_status(response)
                yield response
        except httpx.HTTPError as error:
            where = f"{self._client.base_url}{path}"
            raise ServerAway(f"{where}: {error or type(error).__name__}") from error


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


def _check_status(response: httpx.Response) -> None:
    """Return where the answer is one that was asked for; else raise with the server's words."""
    status = response.status_code
    if response.is_success or status == httpx.codes.NOT_MODIFIED:
        return
    said = _said(response)
    if status in _TRY_LATER:
        raise ServerAway(f"the server answers {status}: {said}", _retry_after(response.headers))
    if status == httpx.codes.UNAUTHORIZED and response.request.url.path != ENROL_PATH:
        raise AgentError("token_refused", f"the server answers {status}: {said}")
    raise Unreachable("refused", f"the server answers {status}: {said}")


def _said(response: httpx.Response) -> str:
    """The server's own explanation, in one line."""
    try:
        problem = Problem.model_validate_json(_body(response))
    except (Unreachable, ValidationError):
        return response.reason_phrase
    code = f" [{problem.code}]" if problem.code else ""
    return f"{problem.detail or problem.title}{code} {problem.todo}".strip()[:1000]


def _parsed(response: httpx.Response, kind: type[_Message]) -> _Message:
    try:
        return kind.model_validate_json(_body(response))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        path = response.request.url.path
        raise Unreachable("bad_answer", f"{path}: {place}: {first['msg']}") from error


def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise Unreachable("bad_answer", f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _retry_after(headers: httpx.Headers) -> float | None:
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
