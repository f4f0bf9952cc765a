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
from typing import TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from edge_agent.config import Config
from edge_agent.connection import Answer, Connection
from edge_agent.errors import AgentError, Decommissioned, Refused, ServerAway
from edge_agent.keys import DeviceKey
from shared.errors import Unreachable
from shared.wire import (
    DESIRED_PATH,
    ENROL_PATH,
    METADATA_PATH,
    POLL_INTERVAL_HEADER,
    REPORTS_PATH,
    TOKEN_PATH,
    Desired,
    Enrolled,
    Enrolment,
    Problem,
    Renewal,
    Renewed,
)

#: Of everything but packages.
MAX_ANSWER_BYTES, MAX_ANSWER_SECONDS = 1 << 20, 300.0
#: A server cannot silence a device for longer, nor make it poll in a tight loop.
MAX_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS = 86400.0, 0.05
#: What is asked for by the device's key, not by its token.
_WITHOUT_TOKEN = frozenset({ENROL_PATH, TOKEN_PATH})
_TRY_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})

_Message = TypeVar("_Message", bound=BaseModel)


@dataclass(frozen=True)
class Poll:
    """The answer to a poll: `desired` is None where nothing has changed since `etag`."""

    desired: Desired | None
    etag: str | None
    interval: float | None  # seconds, if the server said


class DeviceApi:
    """One server, as a device sees it.

    Where the server no longer takes the token, `renew` is asked once for another one.
    """

    def __init__(
        self,
        config: Config,
        agent: str,
        count: Callable[[int], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._token: str | None = None
        self._renew: Callable[[], None] | None = None
        self._connection = Connection(config, agent, count, beat)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def use_token(self, token: str, renew: Callable[[], None] | None = None) -> None:
        """Send `token` with all later requests; `renew` ends by calling this with another one."""
        self._token, self._renew = token, renew

    def enrol(self, enrolment: Enrolment, key: DeviceKey) -> Enrolled:
        """Ask to be known; the enrolment token travels in the body."""
        body = enrolment.model_dump_json().encode()
        signature = key.sign("enrol", "", body)
        with self._request("POST", ENROL_PATH, body, weft_signature=signature) as answer:
            return _parsed(answer, Enrolled)

    def renew(self, renewal: Renewal, key: DeviceKey) -> Renewed:
        """Ask for another token, by the key alone."""
        body = renewal.model_dump_json().encode()
        signature = key.sign("token", renewal.device_id, body)
        with self._request("POST", TOKEN_PATH, body, weft_signature=signature) as answer:
            return _parsed(answer, Renewed)

    def desired(self, etag: str | None) -> Poll:
        """What the device should run, unless it is still what `etag` stood for."""
        with self._request("GET", DESIRED_PATH, if_none_match=etag) as answer:
            interval = _seconds(answer.headers.get(POLL_INTERVAL_HEADER.lower()))
            if answer.status == HTTPStatus.NOT_MODIFIED and etag:
                return Poll(None, etag, interval)
            return Poll(_parsed(answer, Desired), answer.headers.get("etag"), interval)

    def report(self, body: bytes, signature: str) -> None:
        """Send a report, byte for byte as it was persisted."""
        with self._request(
            "POST", REPORTS_PATH, body, weft_signature=signature, accept_encoding=None
        ):
            pass

    def metadata(self, model: str, held: Mapping[str, int]) -> bytes | None:
        """The signed metadata of a model that are lacking, packed; None where nothing is.

        `held`: the versions that are there, by role.
        """
        query = f"?{urlencode(held)}" if held else ""
        with self._request("GET", f"{METADATA_PATH}/{model}{query}") as answer:
            if answer.status == HTTPStatus.NO_CONTENT:
                return None
            _check_encoding(answer)
            return _body(answer)

    @contextlib.contextmanager
    def package(self, url: str, etag: str, start: int, stop: int, size: int) -> Iterator[Answer]:
        """The answer to a request for bytes `start` to `stop` of a package, its body unread.

        It may bring all `size` bytes, as a server need not know ranges.
        """
        part = None if (start, stop) == (0, size) else f"bytes={start}-{_last(stop, size)}"
        with self._request(
            "GET",
            url,
            None,
            size,
            None,
            range=part,
            if_range=etag if part else None,
            accept_encoding=None,
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
        accept_encoding: str | None = "identity",
        **extra: str | None,
    ) -> Iterator[Answer]:
        """Send a request; `extra` are headers, with `_` for `-`, left out where None.

        `accept_encoding` None: the answer is not encoded anyhow, and the header costs 27 bytes.
        """
        given = {**extra, "accept_encoding": accept_encoding}
        headers = {key.replace("_", "-"): value for key, value in given.items() if value}
        if body is not None:
            headers["content-type"] = "application/json"
        renew = None if path in _WITHOUT_TOKEN else self._renew
        while True:
            if self._token and path not in _WITHOUT_TOKEN:
                headers["authorization"] = f"Bearer {self._token}"
            with self._connection.exchange(
                method, path, headers, body, body_bytes, body_seconds
            ) as answer:
                if answer.status != HTTPStatus.UNAUTHORIZED or renew is None:
                    _check_status(answer)
                    yield answer
                    return
            renew()
            renew = None  # a new token that is refused too is not asked for again


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
    if problem.code == "device.decommissioned":
        raise Decommissioned(told)
    raise Refused(told, problem.code)


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
    _check_encoding(answer)
    try:
        return kind.model_validate_json(_body(answer))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Unreachable("bad_answer", f"{answer.path}: {place}: {first['msg']}") from error


def _check_encoding(answer: Answer) -> None:
    encoding = answer.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Unreachable("bad_answer", f"{answer.path}: the answer is encoded as {encoding!r}")


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
