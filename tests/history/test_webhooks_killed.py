"""A server killed with SIGKILL between the change and the receiver: the next one delivers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.db import open_engine
from server.duties import release_all
from tests.e2e.test_killed_server import DOOMED, Site
from tests.history.receiver import Receiver


@pytest.fixture
def site(tmp_path: Path, databases: Any) -> Site:
    site = Site(tmp_path, [])
    site.environment |= databases.environment(tmp_path / "server")
    site.environment["WEFT_WEBHOOK_HOSTS"] = "127.0.0.1"
    return site


@pytest.fixture
def lease_runs_out(tmp_path: Path, databases: Any) -> Callable[[], None]:
    """As if the time of a killed server's leases were over: on PostgreSQL the next one waits."""

    def run_out() -> None:
        engine = open_engine(databases.url(tmp_path / "server"))
        release_all(engine)
        engine.dispose()

    return run_out


def create_webhook(client: httpx.Client, receiver: Receiver) -> None:
    body = {"url": receiver.url, "filter": "kind==model.created"}
    client.post("/api/v1/webhooks", json=body).raise_for_status()


def create_model(client: httpx.Client) -> None:
    client.post("/api/v1/models", json={"name": "m"}).raise_for_status()


@pytest.mark.parametrize(("table", "moment"), [("models", "after"), ("deliveries", "after")])
def test_killed_before_it_is_sent_it_is_sent_by_the_next(
    site: Site, serve: Any, receiver: Receiver, lease_runs_out: Any, table: str, moment: str
) -> None:
    with site.serving(sys.executable, "-c", DOOMED, table, moment) as (process, client):
        create_webhook(client, receiver)
        if table == "models":
            with pytest.raises(httpx.TransportError):
                create_model(client)
        else:
            create_model(client)
        assert process.wait(30) == -signal.SIGKILL
    assert receiver.taken.empty()
    lease_runs_out()
    serve(webhook_hosts=("127.0.0.1",))
    assert receiver.next()[1]["kind"] == "model.created"
    assert receiver.taken.empty()


def test_killed_before_it_knows_of_the_answer_the_same_bytes_are_sent_again(
    site: Site, serve: Any, receiver: Receiver, lease_runs_out: Any
) -> None:
    receiver.open.clear()
    with site.sound() as (process, client):
        create_webhook(client, receiver)
        create_model(client)
        headers, body = receiver.taken.get(timeout=20)
        process.kill()
        process.wait()
    receiver.open.set()
    lease_runs_out()
    serve(webhook_hosts=("127.0.0.1",))
    again, same = receiver.taken.get(timeout=20)
    assert same == body
    assert again["Weft-Delivery"] == headers["Weft-Delivery"]
