"""What Prometheus is told of the fleet, read from the database by a few grouped queries.

The figures are those of the whole installation, whichever process is asked, and are read anew at
most every `FRESH_SECONDS`, however many scrape. Labels are bounded: a model that is not registered
and weights that are no version count as `unknown`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from sqlalchemy import Engine, case, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from server.db import reading
from server.tables import (
    Assignment,
    Delivery,
    Device,
    DeviceModel,
    Model,
    Refinement,
    Rollout,
    TrustMetadata,
    TrustRoot,
    Version,
    now,
)
from shared.errors import WeftError

FRESH_SECONDS = 10.0

#: A device that has not been seen for so long is silent.
SILENT_AFTER = timedelta(hours=1)

STANDINGS = ("pending", "accepted", "cloned", "decommissioned")
ROLLOUT_STATES = ("ready", "active", "paused", "finished", "aborted")
REFINEMENT_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
REFINEMENT_BUCKETS = (10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class Fleet:
    """A collector of prometheus_client over one database; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._metrics: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        """All metrics; where the database cannot be read, only that it is down."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                self._metrics = list(self._read())
                self._read_at = time.monotonic()
            return list(self._metrics)

    def _read(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("weft_database_up", "Whether the database could be read.")
        try:
            with reading(self._engine) as session:
                found = [
                    *_devices(session),
                    _models(session),
                    _by_state(session, Rollout, "weft_rollouts", "Rollouts.", ROLLOUT_STATES),
                    *_assignments(session),
                    *_refinements(session),
                    _deliveries(session),
                    _expiries(session),
                ]
        except (WeftError, SQLAlchemyError):
            found = []
        up.add_metric([], float(bool(found)))
        return [up, *found]


def _devices(session: Session) -> list[Metric]:
    """Of those that were decommissioned nothing is expected any more."""
    since = now() - SILENT_AFTER
    quiet = case((Device.last_seen_at >= since, 0), else_=1)
    counted = select(Device.standing, func.count(), func.sum(quiet)).group_by(Device.standing)
    by_standing = GaugeMetricFamily(
        "weft_devices_standing", "Devices by standing.", labels=["standing"]
    )
    count, silent, found = 0, 0, dict.fromkeys(STANDINGS, 0)
    for standing, here, silent_here in session.execute(counted):
        found[standing] = here
        if standing != "decommissioned":
            count, silent = count + here, silent + silent_here
    for standing, here in found.items():
        by_standing.add_metric([standing], here)
    return [
        GaugeMetricFamily("weft_devices_enrolled", "Devices in service.", count),
        GaugeMetricFamily("weft_devices_silent", "Devices not seen for an hour.", silent),
        by_standing,
    ]


def _models(session: Session) -> Metric:
    """Devices by model, version and state: one scan, digests put to numbers afterwards."""
    metric = GaugeMetricFamily(
        "weft_devices",
        "Devices by model, version in use and state of their update.",
        labels=["model", "version", "state"],
    )
    held = (DeviceModel.model_name, DeviceModel.weights_digest, DeviceModel.state)
    versions = select(Model.name, Version.weights_digest, Version.number).join(Version.model)
    numbers = {(name, digest): str(n) for name, digest, n in session.execute(versions)}
    names = set(session.scalars(select(Model.name)))
    counts = Counter[tuple[str, str, str]]()
    for name, digest, state, count in session.execute(select(*held, func.count()).group_by(*held)):
        version = "none" if digest is None else numbers.get((name, digest), "unknown")
        counts[name if name in names else "unknown", version, state] += count
    for labels, count in sorted(counts.items()):
        metric.add_metric(labels, count)
    return metric


def _by_state(
    session: Session, table: Any, name: str, text: str, states: tuple[str, ...]
) -> GaugeMetricFamily:
    """One sample a state, also of those that nothing is in: a gap is no zero."""
    metric = GaugeMetricFamily(name, text, labels=["state"])
    query = select(table.state, func.count()).group_by(table.state)
    found = dict.fromkeys(states, 0)
    for state, count in session.execute(query):
        found[state] = count
    for state, count in found.items():
        metric.add_metric([state], count)
    return metric


def _assignments(session: Session) -> list[Metric]:
    opened = GaugeMetricFamily(
        "weft_assignments_open", "Devices in the middle of a rollout.", labels=["state"]
    )
    held = GaugeMetricFamily(
        "weft_assignments_held", "Devices to which nothing is offered yet.", labels=["reason"]
    )
    columns = (Assignment.state, Assignment.held)
    query = select(*columns, func.count()).where(Assignment.finished_at.is_(None))
    states, reasons = Counter[str](), Counter[str]()
    for state, reason, count in session.execute(query.group_by(*columns)):
        states[state] += count
        if reason is not None:
            reasons[reason] += count
    for metric, counts in ((opened, states), (held, reasons)):
        for label, count in sorted(counts.items()):
            metric.add_metric([label], count)
    return [opened, held]


def _refinements(session: Session) -> list[Metric]:
    states = _by_state(session, Refinement, "weft_refinements", "Refinements.", REFINEMENT_STATES)
    times = HistogramMetricFamily(
        "weft_refinement_duration_seconds",
        "Time from a refinement's start to its end, by outcome.",
        labels=["outcome"],
    )
    columns = (Refinement.state, Refinement.started_at, Refinement.finished_at)
    ended = (Refinement.started_at.is_not(None), Refinement.finished_at.is_not(None))
    found: dict[str, list[float]] = {}
    for state, started, finished in session.execute(select(*columns).where(*ended)):
        assert started is not None
        assert finished is not None
        found.setdefault(state, []).append((finished - started).total_seconds())
    for state, seconds in sorted(found.items()):
        bounds = [*REFINEMENT_BUCKETS, float("inf")]
        buckets = [(str(b) if b < 1e9 else "+Inf", sum(s <= b for s in seconds)) for b in bounds]
        times.add_metric([state], buckets, sum(seconds))
    return [states, times]


def _deliveries(session: Session) -> Metric:
    query = select(func.count()).where(Delivery.state == "pending")
    text = "Events on their way to webhooks."
    return GaugeMetricFamily("weft_webhook_deliveries_pending", text, session.scalar(query) or 0)


def _expiries(session: Session) -> Metric:
    """By role, of the model whose metadata expire first: `weft doctor` says which that is."""
    metric = GaugeMetricFamily(
        "weft_metadata_expiry_timestamp_seconds",
        "When the first signed metadata expire, in Unix time, by role.",
        labels=["role"],
    )
    root = select(TrustRoot.expires_at).order_by(TrustRoot.version.desc()).limit(1)
    for moment in session.scalars(root):
        metric.add_metric(["root"], moment.timestamp())
    in_use = TrustMetadata.due_at.is_not(None)
    first = select(TrustMetadata.role, func.min(TrustMetadata.expires_at)).where(in_use)
    for role, moment in session.execute(first.group_by(TrustMetadata.role)):
        metric.add_metric([role], moment.timestamp())
    return metric
