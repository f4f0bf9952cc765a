"""The program's end of the socket: a thread that answers the agent. No framework is needed.

    with serve({"digits": live}, "/run/digits/weft.sock", users=["weft-agent"]):
        ...

Only root, the program's own user and `users` are answered, whoever may open the socket.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import socket
import socketserver
import stat
import struct
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge_agent import files
from edge_agent.errors import RuntimeRefused
from edge_agent.runtimes.base import Verdict
from edge_agent.runtimes.holder import Holder
from edge_agent.runtimes.talk import FORMAT, MAX_LINE_BYTES, Answer, Ask, Judged
from shared.errors import BadConfig, WeftError
from shared.wire import Fault

_LISTEN_SECONDS = 10.0
_MODE = 0o660
_CREDENTIALS = struct.Struct("3i")
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def serve(
    holders: Mapping[str, Holder[Any]],
    path: str | os.PathLike[str],
    *,
    users: Collection[str | int] = (),
    group: int | None = None,
) -> Iterator[None]:
    """Answer the agent at `path` while the block runs; `holders` by the names of the models.

    `users` (names or ids) may ask too; `group` (id) is given the socket, so that they reach it.
    Raises BadConfig where another program listens there, or nobody can.
    """
    place = Path(path)
    with _bound(place, _Server(holders, _ids(users)), group) as server:
        thread = threading.Thread(target=server.serve_forever, name="weft", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            for holder in holders.values():
                holder.close()


class _Server(socketserver.ThreadingUnixStreamServer):
    """One connection a thread: a check that hangs must not keep the agent from going back."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 8

    def __init__(self, holders: Mapping[str, Holder[Any]], users: frozenset[int]) -> None:
        self.holders, self._users = holders, users
        super().__init__("", _Handler, bind_and_activate=False)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Whether whoever asks may."""
        size = _CREDENTIALS.size
        given = request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _, user, _ = _CREDENTIALS.unpack(given)
        if user in self._users:
            return True
        _log.warning("user %d may not change weights", user)
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """An agent that went away."""
        _log.debug("the agent went away", exc_info=True)


class _Handler(socketserver.StreamRequestHandler):
    timeout = _LISTEN_SECONDS
    server: _Server

    def handle(self) -> None:
        line = self.rfile.readline(MAX_LINE_BYTES)
        if line:
            self.wfile.write(_answer(self.server.holders, line).line())


def _answer(holders: Mapping[str, Holder[Any]], line: bytes) -> Answer:
    """Every question has an answer; what went wrong is in it."""
    try:
        verdict = _do(holders, Ask.model_validate_json(line))
        return Answer(verdict=Judged(**vars(verdict)) if verdict else None)
    except ValidationError as error:
        return _fault(RuntimeRefused("refused", f"no such question: {error.error_count()} faults"))
    except WeftError as error:
        _log.warning("%s", error)
        return _fault(error)
    except Exception as error:
        _log.exception("the agent's question could not be answered")
        return _fault(RuntimeRefused("refused", f"{type(error).__name__}: {error}"))


def _fault(error: WeftError) -> Answer:
    return Answer(fault=Fault(code=error.code, message=error.message[:2000]))


def _do(holders: Mapping[str, Holder[Any]], ask: Ask) -> Verdict | None:
    """The one place where a question becomes a call."""
    holder = holders.get(ask.model)
    if holder is None or ask.weft != FORMAT:
        raise RuntimeRefused("refused", f"no model {ask.model!r} here, or no format {ask.weft}")
    if ask.do == "revert":
        return holder.revert(ask.weights.weights() if ask.weights else None)
    if ask.weights is None:
        raise RuntimeRefused("refused", f"{ask.do} needs weights")
    new = ask.weights.weights()
    if ask.do == "verify":
        return holder.verify(new, ask.golden, ask.seconds)
    if ask.do == "swap":
        holder.swap(new, ask.seconds)
    elif ask.do == "prepare":
        holder.prepare(new)
    else:
        holder.confirm(new)
    return None


@contextlib.contextmanager
def _bound(place: Path, server: _Server, group: int | None) -> Iterator[_Server]:
    """The server at its place, open to its owner until it is open to the group as well."""
    try:
        _clear(place)
        os.fchmod(server.fileno(), stat.S_IRUSR | stat.S_IWUSR)  # before anybody can see it
        server.server_address = str(place)
        server.server_bind()
        if group is not None:
            os.chown(place, -1, group)
        place.chmod(_MODE)
        server.server_activate()
    except OSError as error:
        server.server_close()
        raise BadConfig("invalid", f"{place}: {error.strerror or error}") from error
    try:
        yield server
    finally:
        server.server_close()
        files.remove(place)


def _clear(place: Path) -> None:
    """Remove the socket of a program that was killed; raises OSError where one listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        if not place.is_socket():
            return
        try:
            probe.connect(str(place))
        except ConnectionRefusedError:
            files.remove(place)
            return
    raise OSError(f"{place} belongs to a program that is running")


def _ids(users: Collection[str | int]) -> frozenset[int]:
    return frozenset({0, os.geteuid(), *map(_id, users)})


def _id(user: str | int) -> int:
    try:
        return user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise BadConfig("invalid", f"there is no user {user}") from error
