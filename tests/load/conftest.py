"""A server with a few simulated devices, without a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.load import fleet
from benchmarks.load.databases import Site

FLEET, IDLE = 30, 10


@pytest.fixture
def loaded(serve: Callable[..., Any], weights_file: Callable[..., Any]) -> Any:
    """The server; `site` is its database, `etag` what a device says that has heard of it."""
    server = serve(rate_others=0)
    for name in (fleet.FLEET, fleet.IDLE):
        server.client.post("/api/v1/models", json={"name": name}).raise_for_status()
        server.client.post(
            f"/api/v1/models/{name}/versions",
            content=weights_file().read_bytes(),
            headers={"Content-Type": "application/octet-stream"},
        ).raise_for_status()
    server.site = Site(server.settings.data_dir, server.settings.url)
    fleet.enrol(server.site, FLEET, IDLE)
    server.etag = fleet.etag(server.site)
    server.port = int(server.url.rpartition(":")[2])
    return server
