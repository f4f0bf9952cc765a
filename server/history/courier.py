"""Sends deliveries: each webhook in a thread of its own, so that none waits for another's receiver.

    pending -> delivered     the receiver answered 2xx
            -> pending       anything else: again after a while, which doubles each time
            -> given_up      it has failed for GIVE_UP_AFTER

At least once: what was sent and not yet marked when the process died is sent again, with the same
id and the same bytes, by which receivers know it. The work of the duty `webhooks`.
"""

from __future__ import annotations

import functools
import json
import logging
import random
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import httpx
from sqlalchemy import ColumnElement, Engine, select, update
from sqlalchemy.orm import Session

from server import metrics
from server.db import reading, writing
from server.history.events import record
from server.history.outbox import fill
from server.history.signing import DELIVERY_HEADER, EVENT_HEADER, SIGNATURE_HEADER, sign
from server.history.targets import check_target
from server.tables import Delivery, Installation, Webhook, now
from shared.errors import WeftError

log = logging.getLogger("weft.webhooks")

#: Seconds between two looks for new events and for deliveries that are due.
LOOK_SECONDS = 1.0

FIRST_DELAY = timedelta(seconds=5)
LONGEST_DELAY = timedelta(hours=1)
GIVE_UP_AFTER = timedelta(hours=24)

#: Seconds for each step of a request. Of the answer only the status is read.
TIMEOUT = httpx.Timeout(10.0, connect=5.0)

#: Seconds that a sender has at the server's stop; what it is sending is sent again.
STOP_SECONDS = 2.0


@dataclass(frozen=True)
class Parcel:
    """A delivery that is due, with all that its request needs."""

    delivery_id: int
    name: str
    """What receivers know it by; other than any of before a restore."""
    kind: str
    url: str
    secret: str
    body: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt: the HTTP status, or what went wrong where there was none."""

    status: int | None
    error: str | None = None
    unreachable: bool = False
    """Nobody is there: no other delivery would fare better."""

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and self.error is None


class Courier:
    """Makes deliveries of new events and sends what is due; `turn` is called again and again."""

    def __init__(self, engine: Engine, hosts: tuple[str, ...]) -> None:
        self._engine, self._hosts = engine, hosts
        self._lanes: dict[int, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def turn(self) -> None:
        """Fill the outbox, and start a sender for each webhook that has something due."""
        fill(self._engine)
        with reading(self._engine) as session:
            query = select(Webhook.id).join(Delivery, Delivery.webhook_id == Webhook.id)
            webhooks = list(session.scalars(query.where(_due()).distinct()))
        for webhook_id in webhooks:
            self._start(webhook_id)

    def stop(self) -> None:
        """Let the senders end; what is not marked by then is sent again."""
        self._stopping.set()
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.join(STOP_SECONDS)

    def _start(self, webhook_id: int) -> None:
        lane = threading.Thread(
            target=self._run, args=[webhook_id], name=f"webhook-{webhook_id}", daemon=True
        )
        with self._lock:
            if webhook_id in self._lanes or self._stopping.is_set():
                return
            self._lanes[webhook_id] = lane
        lane.start()

    def _run(self, webhook_id: int) -> None:
        try:
            while not self._stopping.is_set():
                parcel = self._next(webhook_id)
                if parcel is None:
                    return
                outcome = self._send(parcel)
                told = "delivered" if outcome.is_success else "failed"
                metrics.WEBHOOK_ATTEMPTS.labels(told).inc()
                if not self._stopping.is_set():
                    with writing(self._engine) as session:
                        settle(session, parcel.delivery_id, outcome)
        except Exception:
            log.exception("webhook %d stood still; it is tried again", webhook_id)
        finally:
            with self._lock:
                del self._lanes[webhook_id]

    def _next(self, webhook_id: int) -> Parcel | None:
        """The oldest delivery of the webhook that is due."""
        with reading(self._engine) as session:
            query = select(Delivery, Webhook).join(Webhook, Delivery.webhook_id == Webhook.id)
            mine = query.where(Webhook.id == webhook_id, _due())
            row = session.execute(mine.order_by(Delivery.id).limit(1)).one_or_none()
            if row is None:
                return None
            delivery, webhook = row
            return Parcel(
                delivery_id=delivery.id,
                name=delivery_name(session, delivery),
                kind=json.loads(delivery.body)["kind"],
                url=webhook.url,
                secret=webhook.secret,
                body=delivery.body.encode(),
            )

    def _send(self, parcel: Parcel) -> Outcome:
        try:
            check_target(parcel.url, self._hosts)  # the settings may be others than at its creation
            verify = _tls() if parcel.url.startswith("https:") else False
            with httpx.Client(timeout=TIMEOUT, trust_env=False, verify=verify) as client:
                return _post(client, parcel)
        except WeftError as error:
            return Outcome(None, str(error)[:500])
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return Outcome(None, (str(error) or type(error).__name__)[:500], unreachable=True)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            return Outcome(None, (str(error) or type(error).__name__)[:500])


def _due() -> ColumnElement[bool]:
    """The condition on deliveries, joined to their webhooks, that can be sent now."""
    pending = (Delivery.state == "pending") & (Delivery.due_at <= now())
    return pending & (Webhook.state == "active")


def _post(client: httpx.Client, parcel: Parcel) -> Outcome:
    """One attempt. Redirects are not followed: they would lead past the allowed hosts."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "weft",
        DELIVERY_HEADER: parcel.name,
        EVENT_HEADER: parcel.kind,
        SIGNATURE_HEADER: sign(parcel.secret, int(time.time()), parcel.body),
    }
    with client.stream("POST", parcel.url, content=parcel.body, headers=headers) as answer:
        if answer.is_success:
            return Outcome(answer.status_code)
        text = "redirects are not followed" if answer.is_redirect else "the receiver refused it"
        return Outcome(answer.status_code, text)


def settle(session: Session, delivery_id: int, outcome: Outcome) -> None:
    """Write down what became of an attempt."""
    delivery = session.get(Delivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.state != "pending":
        return
    delivery.attempts += 1
    delivery.status, delivery.error = outcome.status, outcome.error
    if outcome.is_success:
        delivery.state, delivery.finished_at = "delivered", now()
        _wake(session, delivery.webhook_id)
    elif now() - delivery.created_at >= GIVE_UP_AFTER:
        delivery.state, delivery.finished_at = "given_up", now()
        told = {"webhook": delivery.webhook_id, "event": delivery.event_id}
        record(session, "webhook.given_up", told)
    else:
        delivery.due_at = now() + delay(delivery.attempts)
        if outcome.unreachable:
            _put_off(session, delivery)


def delay(attempts: int) -> timedelta:
    """How long to wait after so many failed attempts: twice as long each time, give or take 20%."""
    doubled = FIRST_DELAY * (1 << min(attempts - 1, 30))
    return min(doubled, LONGEST_DELAY) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def delivery_name(session: Session, delivery: Delivery) -> str:
    """The id by which receivers know a delivery."""
    epoch = session.scalar(select(Installation.epoch))
    return f"{epoch}-{delivery.id}"


def _put_off(session: Session, delivery: Delivery) -> None:
    """Have this one ask, after its delay, for all that wait for the same receiver."""
    waiting = (Delivery.webhook_id == delivery.webhook_id) & (Delivery.state == "pending")
    others = waiting & (Delivery.due_at < delivery.due_at)
    session.execute(update(Delivery).where(others).values(due_at=delivery.due_at))


def _wake(session: Session, webhook_id: int) -> None:
    """The receiver is there again: what was put off untried need not wait any longer.

    What it was sent and has refused keeps its own delay.
    """
    waiting = (Delivery.webhook_id == webhook_id) & (Delivery.state == "pending")
    untried = waiting & (Delivery.attempts == 0) & (Delivery.due_at > now())
    session.execute(update(Delivery).where(untried).values(due_at=now()))


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
