"""`weft serve` as a process: how it starts, refuses and ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from server.cli.serve import _listen
from server.settings import load_settings


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_in_order_when_asked(start_server: Any, tmp_path: Path, number: int) -> None:
    process = start_server(tmp_path)
    assert process.url.startswith("http://127.0.0.1:")
    status, err = process.stop(number)
    assert (status, err) == (0, "")


@pytest.mark.sqlite("PostgreSQL serves several processes")
def test_second_server_on_the_same_data_is_refused(start_server: Any, tmp_path: Path) -> None:
    assert start_server(tmp_path).url
    second = start_server(tmp_path)
    assert second.process.wait(timeout=60) == 2
    _, err = second.stop()
    assert '"database.in_use"' in err
    assert "Traceback" not in err


def test_port_in_use_is_told(start_server: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start_server(tmp_path, "--port", str(taken.getsockname()[1]))
        assert process.process.wait(timeout=60) == 2
    assert "cannot listen on" in process.stop()[1]


def test_a_public_address_is_never_open(start_server: Any, tmp_path: Path) -> None:
    process = start_server(tmp_path, "--host", "0.0.0.0")
    assert process.process.wait(timeout=60) == 1
    assert '"config.invalid"' in process.stop()[1]


def test_key_opens_the_management_plane(start_server: Any, tmp_path: Path, weft: Any) -> None:
    secrets = {"WEFT_ADMIN_KEY": "a-real-secret", "WEFT_REQUIRE_KEYS": "true"}
    url = start_server(tmp_path, **secrets).url
    refused = weft("models", "list", "--json", "--server", url)
    assert (refused.status, refused.code) == (1, "request.unauthorized")
    assert weft("models", "list", "--server", url, "--key", "a-real-secret").status == 0


def test_migrate_brings_the_schema_up_to_date(weft: Any, tmp_path: Path) -> None:
    for _ in range(2):
        done = weft("migrate", "--data-dir", tmp_path, "--json")
        assert (done.status, done.json["state"]) == (0, "up to date")


def test_answers_are_not_held_back_for_more_to_send() -> None:
    """The socket's connections have Nagle's algorithm off."""

    async def delay_of_a_connection() -> int:
        seen = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            seen.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(connected, sock=listening) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.close()
            await writer.wait_closed()
            return int(await seen)

    with _listen(load_settings(port=0)) as listening:
        assert asyncio.run(delay_of_a_connection()) == 1
