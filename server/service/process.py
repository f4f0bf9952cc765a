"""What Prometheus is told of this process beside what it counts: its version, load and pool."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from server.api.gate import Gate


class Process:
    """A collector of prometheus_client over what the app stands on."""

    def __init__(self, engine: Engine, gate: Gate) -> None:
        self._engine, self._gate = engine, gate

    def collect(self) -> Iterable[Metric]:
        """The figures of this moment."""
        build = InfoMetricFamily("weft_build", "The program.", {"version": version("weft")})
        text = "Requests whose answer has not begun."
        in_work = GaugeMetricFamily("weft_http_requests_in_work", text, self._gate.in_work)
        connections = GaugeMetricFamily(
            "weft_database_connections", "Connections to the database.", labels=["state"]
        )
        pool = self._engine.pool
        if isinstance(pool, QueuePool):
            connections.add_metric(["in_use"], pool.checkedout())
            connections.add_metric(["idle"], pool.checkedin())
        return [build, in_work, connections]
