"""The management plane as the commands use it: one method a kind of request, clear errors.

Refused   user's fault    the server's own code and words for a 4xx answer
Failed    ours            the same for a 5xx answer
Unreachable `server.unreachable`, `server.bad_answer`
BadCommand  the address is none
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from server.errors import BadCommand
from shared.errors import BadWeights, NoSpace, OperationError, Unreachable, UserError, WeftError
from shared.wire import Problem

DEFAULT_SERVER = "http://127.0.0.1:8300"
API = "/api/v1"
PIECE_BYTES = 256 * 1024

#: Uploads are checked and packages built before the answer comes: reading may take minutes.
TIMEOUT = httpx.Timeout(10.0, read=1800.0, write=120.0)

#: The server says something every 15 seconds, be it that nothing has happened.
STREAM_TIMEOUT = httpx.Timeout(10.0, read=60.0)

Advance = Callable[[int], None]


def _adopt(error: WeftError, problem: Problem) -> None:
    error.code, error.message, error.todo = problem.code, problem.detail, problem.todo


class Refused(UserError):
    """The server refuses a request; code and words are the server's."""

    def __init__(self, problem: Problem) -> None:
        Exception.__init__(self, problem.detail)
        _adopt(self, problem)


class Failed(OperationError):
    """The server fails at a request; code and words are the server's."""

    def __init__(self, problem: Problem) -> None:
        Exception.__init__(self, problem.detail)
        _adopt(self, problem)


class Client:
    """One server's management plane. Raises Refused, Failed, Unreachable and BadCommand."""

    def __init__(self, server: str, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        _check_address(server)
        self.server = server.rstrip("/")
        with self._seam():
            self._http = httpx.Client(
                base_url=self.server + API,
                headers=headers,
                timeout=TIMEOUT,
                trust_env=False,
                # Loading the authorities takes a tenth of a second, for nothing without TLS.
                verify=httpx.URL(self.server).scheme != "http",
            )

    def with_key(self, key: str | None) -> Client:
        """The same, showing this key."""
        if key is not None:
            self._http.headers["Authorization"] = f"Bearer {key}"
        return self

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a resource; query values of None are left out."""
        return self._json("GET", path, params=_given(query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of the answer to a POST of `body`."""
        return self._json("POST", path, json=body)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON of the answer to a PUT of `body`."""
        return self._json("PUT", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON of the answer to a PATCH with `body`."""
        return self._json("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE a resource."""
        with self._seam():
            _check(self._http.delete(path))

    def upload(self, path: str, source: Path, advance: Advance, **query: Any) -> Any:
        """POST a file as it is, piece by piece; `advance` hears the bytes of each."""
        try:
            size, file = source.stat().st_size, source.open("rb")
        except OSError as error:
            raise BadWeights("not_found", f"{source}: {error.strerror}") from error
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with file:
            content = _pieces(file, advance)
            return self._json("POST", path, content=content, headers=headers, params=_given(query))

    def download(
        self,
        path: str,
        target: Path,
        progress: Callable[[int | None], Any],
        body: Mapping[str, Any] | None = None,
    ) -> int:
        """GET a file to `target`, or POST `body` for it; returns its bytes.

        It appears only when it is whole. A target that is no file (a pipe, /dev/stdout) is written
        to as it is; a link stays one.
        `progress(total)` gives a context manager around the transfer. Raises NoSpace.
        """
        is_file = target.is_file() or not target.exists()
        target = target.resolve() if is_file else target
        beside = target.with_name(f".{target.name}.part") if is_file else target
        size = 0
        verb = "GET" if body is None else "POST"
        with self._seam(), self._http.stream(verb, path, json=body) as answer:
            _check(answer)
            total = answer.headers.get("content-length")
            try:
                with progress(int(total) if total else None) as advance, beside.open("wb") as file:
                    for data in answer.iter_bytes(PIECE_BYTES):
                        size += file.write(data)
                        advance(len(data))
                if is_file:
                    beside.replace(target)
            except OSError as error:
                raise NoSpace("unusable", f"{target}: {error.strerror}") from error
            finally:
                if is_file:
                    beside.unlink(missing_ok=True)
        return size

    def follow(self, path: str) -> Iterator[Any]:
        """The JSON of each server-sent event, until the server ends the stream."""
        for _, value in self.listen(path):
            if value is not None:
                yield value

    def listen(self, path: str, **query: Any) -> Iterator[tuple[str | None, Any]]:
        """The same, each with the last id; without a value where there came only an id."""
        last = None
        opened = self._http.stream("GET", path, params=_given(query), timeout=STREAM_TIMEOUT)
        with self._seam(), opened as answer:
            _check(answer)
            for line in answer.iter_lines():
                name, _, text = line.partition(":")
                if name == "id":
                    last = text.strip()
                    yield last, None
                elif name == "data":
                    yield last, json.loads(text)

    def _json(self, verb: str, path: str, **request: Any) -> Any:
        with self._seam():
            answer = self._http.request(verb, path, **request)
            _check(answer)
            return answer.json()

    @contextmanager
    def _seam(self) -> Iterator[None]:
        """What httpx and JSON raise becomes ours."""
        try:
            yield
        except (httpx.RequestError, httpx.InvalidURL) as error:
            text = str(error) or type(error).__name__
            raise Unreachable("unreachable", f"{self.server}: {text}") from error
        except ValueError as error:
            raise Unreachable("bad_answer", f"{self.server}: the answer is not JSON") from error


def _check_address(server: str) -> None:
    """Raise BadCommand `invalid` where this is no address, however it came here."""
    try:
        url = httpx.URL(server)
    except httpx.InvalidURL as error:
        raise BadCommand("invalid", f"--server or WEFT_SERVER: {server!r}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        text = f"{server!r} is no address that begins with http:// or https://"
        raise BadCommand("invalid", f"--server or WEFT_SERVER: {text}")


def _check(answer: httpx.Response) -> None:
    """Raise what an answer that is no success tells."""
    if answer.is_success:
        return
    answer.read()
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValueError as error:
        text = f"{answer.url}: status {answer.status_code} without a Weft problem"
        raise Unreachable("bad_answer", text) from error
    raise (Failed if answer.is_server_error else Refused)(problem)


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _pieces(file: BinaryIO, advance: Advance) -> Iterator[bytes]:
    while data := file.read(PIECE_BYTES):
        advance(len(data))
        yield data
