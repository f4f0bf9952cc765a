"""A server killed with SIGKILL between the change and the receiver: the next one delivers."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_killed_server import DOOMED, Site
from tests.history.receiver import Receiver


@pytest.fixture
def site(tmp_path: Path, databases: Any) -> Site:
    site = Site(tmp_path, [])
    site.environment |= databases.environment(tmp_path / "server")
    site.environment["WEFT_WEBHOOK_HOSTS"] = "127.0.0.1"
    return site


def create_webhook(client: httpx.Client, receiver: Receiver) -> None:
    body = {"url": receiver.url, "filter": "kind==model.created"}
    client.post("/api/v1/webhooks", json=body).raise_for_status()


def create_model(client: httpx.Client) -> None:
    client.post("/api/v1/models", json={"name": "m"}).raise_for_status()


@pytest.mark.parametrize(("table", "moment"), [("models", "after"), ("deliveries", "after")])
def test_killed_before_it_is_sent_it_is_sent_by_the_next(
    site: Site, receiver: Receiver, table: str, moment: str
) -> None:
    with site.sound() as (_, client):
        create_webhook(client, receiver)
    with site.serving(sys.executable, "-c", DOOMED, table, moment) as (process, client):
        if table == "models":
            with pytest.raises(httpx.TransportError):
                create_model(client)
        else:
            create_model(client)
        assert process.wait(30) == -signal.SIGKILL
    assert receiver.taken.empty()
    with site.sound():
        assert receiver.next()[1]["kind"] == "model.created"
    assert receiver.taken.empty()


def test_killed_before_it_knows_of_the_answer_the_same_bytes_are_sent_again(
    site: Site, receiver: Receiver
) -> None:
    receiver.open.clear()
    with site.sound() as (process, client):
        create_webhook(client, receiver)
        create_model(client)
        headers, body = receiver.taken.get(timeout=20)
        process.kill()
        process.wait()
    receiver.open.set()
    with site.sound() as (_, client):
        again, same = receiver.taken.get(timeout=20)
    assert same == body
    assert again["Weft-Delivery"] == headers["Weft-Delivery"]
