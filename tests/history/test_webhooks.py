"""Webhooks with real receivers: signed, at least once, each for itself."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from server.db import reading, writing
from server.history import courier
from server.history.courier import Outcome, delay, settle
from server.history.events import record
from server.history.outbox import BATCH, fill
from server.history.webhooks import create_webhook
from server.tables import Delivery, Event, Webhook, now
from tests.history.receiver import Receiver

SECRET = "a-secret-of-the-receiver"


@pytest.fixture
def site(serve: Any) -> Any:
    return serve(webhook_hosts=("127.0.0.1",))


def call(site: Any, method: str, path: str, status: int = 200, **request: Any) -> Any:
    answer = site.client.request(method, f"/api/v1/webhooks{path}", **request)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def create(site: Any, receiver: Receiver, **more: Any) -> Any:
    return call(site, "POST", "", 201, json={"url": receiver.url, "secret": SECRET} | more)


def tell(site: Any, *kinds: str) -> None:
    with writing(site.app.state.engine) as session:
        for kind in kinds:
            record(session, kind, {"n": 1})
    site.app.state.webhooks.ring()


def deliveries(site: Any, query: str = "") -> Any:
    return call(site, "GET", f"/1/deliveries{query}")["items"]


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds, as soon as that is something."""
    for _ in range(1000):
        if found := look():
            return found
        threading.Event().wait(0.01)
    raise AssertionError("it never came")


def due_now(site: Any) -> None:
    with writing(site.app.state.engine) as session:
        session.execute(update(Delivery).values(due_at=now()))
    site.app.state.webhooks.ring()


@pytest.fixture(scope="session")
def verify(checkout: Path) -> Callable[..., bool]:
    """The receiver's code, as docs/webhooks.md shows it."""
    text = (checkout / "docs" / "webhooks.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(code, names)
    return names["verify"]  # type: ignore[no-any-return]


def test_an_event_arrives_signed_as_the_document_says(
    site: Any, receiver: Receiver, verify: Callable[..., bool]
) -> None:
    made = create(site, receiver, filter="kind==told.*")
    assert made["secret"] == SECRET
    tell(site, "other.thing", "told.thing")
    headers, body = receiver.taken.get(timeout=20)
    [event] = site.client.get("/api/v1/events?kind=told").json()["items"]
    assert json.loads(body) == event
    assert headers["Weft-Event"] == "told.thing"
    signature = headers["Weft-Signature"]
    assert verify(SECRET, signature, body)
    assert not verify(SECRET, signature, body + b" ")
    assert not verify("another-secret-of-it", signature, body)
    assert not verify(SECRET, signature, body, tolerance=-1)
    assert not verify(SECRET, "nonsense", body)
    [sent] = until(lambda: deliveries(site, "?state=delivered"))
    assert (sent["delivery"], sent["status"], sent["attempts"]) == (
        headers["Weft-Delivery"],
        204,
        1,
    )
    assert receiver.taken.empty()


def test_after_a_500_the_same_bytes_come_again(site: Any, receiver: Receiver) -> None:
    create(site, receiver)
    receiver.answers.put(500)
    receiver.answers.put(302)
    tell(site, "told")
    first = receiver.taken.get(timeout=20)
    [failed] = until(lambda: [d for d in deliveries(site) if d["attempts"] == 1])
    assert (failed["state"], failed["status"]) == ("pending", 500)
    due_now(site)
    second = receiver.taken.get(timeout=20)
    [failed] = until(lambda: [d for d in deliveries(site) if d["attempts"] == 2])
    assert failed["error"] == "redirects are not followed"
    due_now(site)
    third = receiver.taken.get(timeout=20)
    assert first[1] == second[1] == third[1]
    assert len({headers["Weft-Delivery"] for headers, _ in (first, second, third)}) == 1
    until(lambda: deliveries(site, "?state=delivered"))
    call(site, "POST", "/1/deliveries/1/redeliver", 202)
    site.app.state.webhooks.ring()
    assert receiver.taken.get(timeout=20)[1] == first[1]


def test_a_receiver_that_hangs_delays_no_other(site: Any, receivers: Any) -> None:
    slow, quick = receivers(), receivers()
    slow.open.clear()
    create(site, slow)
    create(site, quick)
    tell(site, *(f"told.{number}" for number in range(20)))
    kinds = [quick.next()[1]["kind"] for _ in range(20)]
    assert kinds == [f"told.{number}" for number in range(20)]
    assert slow.taken.qsize() == 1
    slow.open.set()
    assert [slow.next()[1]["kind"] for _ in range(20)] == kinds


def test_a_receiver_that_comes_back_gets_all_that_waited(site: Any, receivers: Any) -> None:
    receiver = receivers()
    create(site, receiver)
    for _ in range(3):
        receiver.answers.put(503)
    tell(site, "one", "two", "three")
    until(lambda: [d["attempts"] for d in deliveries(site)] == [1, 1, 1])
    due_now(site)
    until(lambda: len(deliveries(site, "?state=delivered")) == 3)
    assert receiver.taken.qsize() == 6


def test_where_nobody_answers_one_delivery_asks_for_all(engine: Engine) -> None:
    with writing(engine) as session:
        create_webhook(session, "https://example.org", None, None)
        for _ in range(3):
            record(session, "told")
    fill(engine)
    with writing(engine) as session:
        first, *others = session.scalars(select(Delivery).order_by(Delivery.id))
        settle(session, first.id, Outcome(None, "connection refused", unreachable=True))
        session.expire_all()
        assert {row.due_at for row in others} == {first.due_at}
        assert [row.attempts for row in (first, *others)] == [1, 0, 0]
        settle(session, first.id, Outcome(204))
        session.expire_all()
        assert all(row.due_at <= now() for row in others)


def test_what_a_receiver_refuses_waits_though_it_takes_all_else(engine: Engine) -> None:
    """Else each event that it takes would bring the refused one at once, without end."""
    with writing(engine) as session:
        session.add(Webhook(url="http://127.0.0.1:1/", secret=SECRET))
        session.flush()
        session.add_all(Delivery(webhook_id=1, event_id=n, body="{}") for n in (1, 2, 3))
    with writing(engine) as session:
        settle(session, 1, Outcome(500, "the receiver refused it"))
        wait = session.get_one(Delivery, 1).due_at
        settle(session, 2, Outcome(204))
    with reading(engine) as session:
        assert session.get_one(Delivery, 1).due_at == wait > now()
        assert session.get_one(Delivery, 3).due_at <= now()


def test_paused_it_is_sent_nothing_and_loses_nothing(site: Any, receiver: Receiver) -> None:
    create(site, receiver)
    assert call(site, "PATCH", "/1", json={"state": "paused"})["state"] == "paused"
    tell(site, "while.paused")
    call(site, "PATCH", "/1", json={"state": "active", "filter": "kind!=later"})
    tell(site, "later", "after")
    assert [receiver.next()[1]["kind"] for _ in range(2)] == ["while.paused", "after"]


def test_a_test_event_goes_to_one_webhook_whatever_its_filter(site: Any, receivers: Any) -> None:
    one, other = receivers(), receivers()
    create(site, one, filter="kind==never")
    create(site, other)
    sent = call(site, "POST", "/1/test", 202)
    site.app.state.webhooks.ring()
    headers, event = one.next()
    assert (event["kind"], headers["Weft-Delivery"]) == ("webhook.tested", sent["delivery"])
    tell(site, "told")
    assert other.next()[1]["kind"] == "told"


def test_the_secret_is_shown_once_and_nowhere_else(
    site: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = call(site, "POST", "", 201, json={"url": receiver.url})
    assert len(made["secret"]) >= 43
    create(site, receiver)
    for _ in range(2):
        receiver.answers.put(500)
    tell(site, "told")
    until(lambda: [d for d in deliveries(site) if d["error"]])
    shown = [call(site, "GET", path) for path in ("", "/1", "/1/deliveries")]
    shown += [call(site, "PATCH", "/1", json={"secret": "another-secret-for-it"})]
    shown += [site.client.get("/api/v1/events").json()]
    call(site, "DELETE", "/1", 204)
    call(site, "GET", "/1", 404)
    for secret in (made["secret"], SECRET, "another-secret-for-it"):
        assert secret not in json.dumps(shown) + caplog.text
    kinds = [e["kind"] for e in site.client.get("/api/v1/events?kind=webhook").json()["items"]]
    assert kinds == ["webhook.deleted", "webhook.changed", "webhook.created", "webhook.created"]


def test_an_error_of_the_database_tells_no_secret(engine: Engine) -> None:
    row = {"url": "https://example.org", "secret": SECRET, "state": None}
    with pytest.raises(IntegrityError) as refused, writing(engine) as session:
        session.execute(insert(Webhook).values(**row))
    assert "webhooks" in str(refused.value)
    assert SECRET not in str(refused.value).partition("[SQL")[2]


REFUSED = [
    ("http://10.0.0.1/x", "webhook.bad_url"),
    ("ftp://127.0.0.1/x", "webhook.bad_url"),
    ("http://user:word@127.0.0.1/", "webhook.bad_url"),
    ("http://127.0.0.1:99999/", "webhook.bad_url"),
    ("http://127.0.0.1/#a", "webhook.bad_url"),
    ("http:///x", "webhook.bad_url"),
    ("http://[::1", "webhook.bad_url"),
    ("http://127.0.0.1/a b", "webhook.bad_url"),
    ("https://example.org/", "webhook.host_not_allowed"),
    ("http://[::1]/", "webhook.host_not_allowed"),
    ("https://other.example:9/", "webhook.host_not_allowed"),
]


def test_addresses_that_the_settings_do_not_name_are_refused(serve: Any) -> None:
    site = serve(webhook_hosts="127.0.0.1, other.example:443 ,hooks.example")
    for url, code in REFUSED:
        assert call(site, "POST", "", 422, json={"url": url})["code"] == code, url
    for url in ("https://OTHER.example/x", "https://hooks.example:8443/", "http://127.0.0.1:1/"):
        call(site, "POST", "", 201, json={"url": url})
    assert call(site, "PATCH", "/1", 422, json={"url": "https://a.b/"})["code"] == (
        "webhook.host_not_allowed"
    )
    bad = {"url": "http://127.0.0.1/", "filter": "nothing==1"}
    assert call(site, "POST", "", 422, json=bad)["code"] == "filter.unknown_field"
    short = {"url": "http://127.0.0.1/", "secret": "short"}
    assert "short" not in call(site, "POST", "", 422, json=short)["detail"]


def test_a_host_that_is_not_allowed_any_more_is_sent_nothing(
    serve: Any, receiver: Receiver
) -> None:
    site = serve(webhook_hosts=("127.0.0.1",))
    create(site, receiver)
    site.stop()
    again = serve()
    tell(again, "told")
    [held] = until(lambda: [d for d in deliveries(again) if d["attempts"]])
    assert "WEFT_WEBHOOK_HOSTS" in held["error"]
    assert receiver.taken.empty()


def test_each_event_becomes_one_delivery_however_often_it_is_looked_at(engine: Engine) -> None:
    with writing(engine) as session:
        create_webhook(session, "https://example.org", "kind==told", None)
        record(session, "told")
    with writing(engine) as session:
        for number in range(BATCH + 10):
            record(session, "told" if number % 2 else "other")
    for _ in range(3):
        fill(engine)
    with writing(engine) as session:
        assert len(session.scalars(select(Delivery)).all()) == BATCH // 2 + 5 + 1
        webhook = session.get_one(Webhook, 1)
        webhook.after_transaction = webhook.after_event = 0
    fill(engine)
    with reading(engine) as session:
        assert len(session.scalars(select(Delivery)).all()) == BATCH // 2 + 5 + 1


def test_it_gives_up_after_a_day_and_history_says_so(engine: Engine) -> None:
    with writing(engine) as session:
        create_webhook(session, "https://example.org", None, None)
        for _ in range(2):
            record(session, "told")
    fill(engine)
    refused = Outcome(500, "the receiver refused it")
    with writing(engine) as session:
        first, second = session.scalars(select(Delivery).order_by(Delivery.id))
        second.created_at -= courier.GIVE_UP_AFTER
        settle(session, first.id, refused)
        settle(session, second.id, refused)
        assert (first.state, second.state) == ("pending", "given_up")
        assert timedelta(seconds=3) < first.due_at - now() < timedelta(seconds=7)
    fill(engine)
    with reading(engine) as session:
        [event] = session.scalars(select(Event).where(Event.kind == "webhook.given_up"))
        assert event.data == {"webhook": 1, "event": second.event_id}
        assert len(session.scalars(select(Delivery)).all()) == 2


def test_waiting_doubles_up_to_an_hour() -> None:
    waits = [delay(attempts).total_seconds() for attempts in (1, 2, 3, 20, 10_000)]
    assert all(0.8 <= wait / 2**n / 5 <= 1.2 for n, wait in enumerate(waits[:3]))
    assert all(2880 <= wait <= 4320 for wait in waits[3:])
