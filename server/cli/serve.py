"""`weft serve` and `weft migrate`: the server itself."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvicorn

from server import logs
from server.cli.options import Json
from server.cli.output import say, show_record
from server.errors import ServerError
from server.settings import Settings, load_settings
from shared.errors import Unreachable

if TYPE_CHECKING:
    from fastapi import FastAPI

#: Seconds after which a thread that computes must let another one run: ten times as often as Python
#: has it by default, since each read and write of the event loop waits for that.
SWITCH_SECONDS = 0.0005

#: Seconds that open requests have to end after a Ctrl-C; followers of a refinement never do.
STOP_GRACE = 5

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int | None, typer.Option("--port", help="Port; 0 chooses a free one.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Database, blobs and jobs lie here.")
]


class _Server(uvicorn.Server):
    """Uvicorn, saying where it listens once it does."""

    def __init__(self, config: uvicorn.Config, url: str, as_json: bool) -> None:
        super().__init__(config)
        self._url, self._as_json = url, as_json

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # what the app is made of is never garbage: a look at all of it took 100 ms
        if self.started:
            show_record({"url": self._url} | self._first_key(), self._as_json)

    def _first_key(self) -> dict[str, str]:
        """The key that a new server begins with, shown this once."""
        key = getattr(self.config.loaded_app.state, "first_key", None)
        if key is None:
            return {}
        say("admin_key opens all of the server, and is not shown again: keep it (`weft login`)")
        return {"admin_key": key}


def serve(
    host: Host = None, port: Port = None, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Run the server until Ctrl-C. What is not given here comes from WEFT_* variables."""
    given = {"host": host, "port": port, "data_dir": data_dir}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    run(settings, as_json)


def run(
    settings: Settings, as_json: bool = False, make: Callable[[Settings], FastAPI] | None = None
) -> None:
    """Serve with these settings; prints the URL on stdout once requests are answered.

    `make` builds another app than the server's own.
    """
    from server.api.protocol import BoundedHttp, forwarding
    from server.app import create_app

    sys.setswitchinterval(SWITCH_SECONDS)
    logs.set_up(settings.log_format, settings.log_level)
    app = (make or create_app)(settings)
    listening = _listen(settings)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_GRACE,
        server_header=False,
        **forwarding(settings),
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    server = _Server(config, f"http://{host}:{listening.getsockname()[1]}", as_json)
    logging.getLogger("uvicorn.error").addFilter(lambda _: not hasattr(app.state, "start_error"))
    # Uvicorn leaves by SystemExit where it cannot start, and raises Ctrl-C again after its end.
    with listening, _ending_by_sigterm(), suppress(SystemExit, KeyboardInterrupt):
        server.run(sockets=[listening])
    if hasattr(app.state, "start_error"):
        raise app.state.start_error
    if not server.started:
        raise ServerError("internal", "the server could not start; its log says why")


@contextmanager
def _ending_by_sigterm() -> Iterator[None]:
    """Make SIGTERM a Ctrl-C: raised again by Uvicorn, it would else be what the process died of."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listen(settings: Settings) -> socket.socket:
    """The socket, bound before anything else starts: a port in use is told at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP, else asyncio leaves Nagle's algorithm on: 40 ms for each answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        place = f"{settings.host}:{settings.port}"
        raise Unreachable("cannot_listen", f"cannot listen on {place}: {error.strerror}") from error
    return listening


def migrate(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Bring the database's schema up to date."""
    from sqlalchemy import make_url

    from server import db

    settings = load_settings(**({"data_dir": data_dir} if data_dir else {}))
    db.migrate(settings.url)
    engine = db.open_engine(settings.url)
    try:
        db.check_current(engine)
    finally:
        engine.dispose()
    database = make_url(settings.url).render_as_string(hide_password=True)
    show_record({"database": database, "state": "up to date"}, as_json)
