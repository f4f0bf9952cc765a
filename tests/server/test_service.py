"""/healthz, /readyz and /metrics: what those who run the server look at."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from server.service import fleet as fleet_figures
from server.service import readiness
from tests.device_keys import DeviceKey

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def samples(server: Any, **headers: str) -> dict[str, float]:
    """`name{labels}` -> value, as Prometheus reads them."""
    answer = server.client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = SAMPLE.findall(answer.text)
    return {f"{n}{{{labels}}}" if labels else n: float(value) for n, labels, value in found}


@pytest.fixture
def always_fresh(monkeypatch):
    monkeypatch.setattr(fleet_figures, "FRESH_SECONDS", -1.0)
    monkeypatch.setattr(readiness, "FRESH_SECONDS", -1.0)


def test_the_fleet_by_model_version_and_state(fleet, always_fresh):
    one, two = fleet.digests
    fleet.enrol(current=one)
    fleet.enrol(current=two, name="b")
    fleet.enrol(current="ab" * 32, name="c")
    fleet.enrol(name="d")
    stranger = {"name": "e", "token": "enrol-me-please", "models": {"other": {"slots": []}}}
    fleet.call("POST", "/device/v1/enrol", **DeviceKey().enrolment(stranger))
    found = samples(fleet.server)
    assert found["weft_devices_enrolled"] == 5
    assert {key: value for key, value in found.items() if key.startswith("weft_devices{")} == {
        f'weft_devices{{model="{model}",state="idle",version="{version}"}}': 1.0
        for model, version in (
            ("m", "1"),
            ("m", "2"),
            ("m", "unknown"),
            ("m", "none"),
            ("unknown", "none"),
        )
    }
    assert found['weft_rollouts{state="active"}'] == 0
    assert found['weft_refinements{state="queued"}'] == 0
    assert found["weft_database_up"] == 1


def test_polls_and_package_bytes_are_counted_as_sent(fleet):
    before = samples(fleet.server)
    sha256 = fleet.publish(1, 2, b"x" * 1000)
    device = fleet.enrol(current=fleet.digests[0])
    etag = fleet.poll(device).headers["etag"]
    assert fleet.poll(device, etag).status_code == 304
    url = f"/device/v1/packages/{sha256}"
    part = device["headers"] | {"Range": "bytes=900-"}
    assert len(fleet.server.client.get(url, headers=device["headers"]).content) == 1000
    assert len(fleet.server.client.get(url, headers=part).content) == 100
    after = samples(fleet.server)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grown('weft_package_sent_bytes_total{method="ka"}') == 1100
    assert grown('weft_poll_duration_seconds_count{status="200"}') == 1
    assert grown('weft_poll_duration_seconds_count{status="304"}') == 1
    route = 'method="GET",route="/device/v1/packages/{sha256}"'
    assert grown(f'weft_http_requests_total{{{route},status="206"}}') == 1


def test_metrics_need_the_key_where_there_is_one(serve):
    server = serve(admin_key="a-real-secret")
    assert server.client.get("/metrics").status_code == 401
    assert samples(server, Authorization="Bearer a-real-secret")["weft_devices_enrolled"] == 0


def test_strange_methods_and_paths_make_no_new_series(server):
    for method in ("PROPFIND", "TRACE", "LOCK"):
        server.client.request(method, "/strange/one")
    found = [key for key in samples(server) if "strange" in key.lower() or "PROPFIND" in key]
    assert found == []


def test_ready_says_what_is_wrong(server, always_fresh):
    get = server.client.get
    assert get("/readyz").json() == {"status": "ready", "checked": ["database", "blobs"]}
    blobs = Path(server.settings.blobs_dir)
    shutil.move(blobs, blobs.with_name("moved"))
    blobs.write_text("no folder")
    refused = get("/readyz")
    assert (refused.status_code, refused.json()["code"]) == (503, "service.not_ready")
    assert "blobs: " in refused.json()["detail"]
    blobs.unlink()
    shutil.move(blobs.with_name("moved"), blobs)
    assert get("/readyz").status_code == 200
    with server.app.state.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'other'"))
    assert "database: " in get("/readyz").json()["detail"]
    assert get("/healthz").status_code == 200


def test_a_database_that_is_away_leaves_the_other_figures(server, always_fresh):
    with server.app.state.engine.begin() as connection:
        connection.execute(text("ALTER TABLE rollouts RENAME TO away"))
    found = samples(server)
    assert found["weft_database_up"] == 0
    assert "weft_devices_enrolled" not in found
    assert found["process_resident_memory_bytes"] > 0


def test_docs_need_nothing_from_elsewhere(server):
    answer = server.client.get("/docs")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<link|src=|href=.?http|url\(", answer.text)
    for path in server.client.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in answer.text
