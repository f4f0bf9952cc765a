"""The history of one update, as an operator reads it; pages, filters, things that are not there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import quote

from server.api.paging import encode
from server.db import writing
from server.history.events import record
from server.history.kinds import KINDS
from server.history.retention import PROGRESS
from server.rollouts.states import OF_DEVICES, OVERDUE


def test_the_whole_story_in_order(fleet):
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    rollout = fleet.roll_out(2)
    fleet.report(device, fleet.offer(device)["assignment"], fleet.digests[1], seconds=2.0)
    events = fleet.call("GET", "/api/v1/events?order=oldest")["items"]
    kinds = [e["kind"] for e in events]
    assert kinds[:6] == [
        "root.published",
        "model.created",
        "version.uploaded",
        "version.uploaded",
        "device.enrolled",
        "rollout.created",
    ]
    assert kinds.index("assignment.offered") < kinds.index("assignment.committed")
    committed = events[kinds.index("assignment.committed")]
    assert committed["device_id"] == device["device_id"]
    assert committed["rollout_id"] == rollout["id"]
    assert None not in (committed["package_id"], committed["version_id"], committed["model_id"])
    assert (committed["model"], committed["version"]) == ("m", 2)
    assert [(e["model"], e["version"]) for e in events[:5]] == [
        (None, None),
        ("m", None),
        ("m", 1),
        ("m", 2),
        (None, None),
    ]
    assert committed["data"]["seconds"] == 2.0
    ids = ("device_id", "assignment_id", "rollout_id", "version_id", "model_id")
    of_assignments = [e for e in events if e["kind"].startswith("assignment.")]
    assert all(e[name] is not None for e in of_assignments for name in ids)
    newest = fleet.call("GET", "/api/v1/events")["items"]
    assert newest == events[::-1]


def test_filters_and_pages(fleet):
    device = fleet.enrol(fleet.digests[0])
    get = fleet.call
    versions = get("GET", "/api/v1/events?kind=version")["items"]
    assert {e["kind"] for e in versions} == {"version.uploaded"}
    mine = get("GET", f"/api/v1/events?device_id={device['device_id']}")["items"]
    assert [e["kind"] for e in mine] == ["device.enrolled"]
    assert len(get("GET", "/api/v1/events?model=m")["items"]) == 3
    first = get("GET", "/api/v1/events?limit=2&order=oldest")
    second = get("GET", f"/api/v1/events?limit=2&order=oldest&cursor={first['next']}")
    third = get("GET", f"/api/v1/events?limit=2&order=oldest&cursor={second['next']}")
    pages = [first["items"], second["items"], third["items"]]
    assert [[e["id"] for e in page] for page in pages] == [[1, 2], [3, 4], [5]]
    assert third["next"] is None


def test_an_rsql_filter_goes_with_the_other_parameters(fleet):
    device = fleet.enrol(fleet.digests[0])["device_id"]
    wanted = quote(f"kind==device.*;device=={device},version==2")
    found = fleet.call("GET", f"/api/v1/events?order=oldest&filter={wanted}")["items"]
    assert [e["kind"] for e in found] == ["version.uploaded", "device.enrolled"]
    found = fleet.call("GET", f"/api/v1/events?kind=device&filter={wanted}")["items"]
    assert [e["kind"] for e in found] == ["device.enrolled"]


def test_since_and_until_bound_the_time(fleet):
    first, second, *_ = fleet.call("GET", "/api/v1/events?order=oldest")["items"]
    at = quote(second["at"])
    before = fleet.call("GET", f"/api/v1/events?until={at}")["items"]
    assert [e["id"] for e in before] == [first["id"]]
    since = fleet.call("GET", f"/api/v1/events?order=oldest&since={at}")["items"]
    assert [e["id"] for e in since] == [2, 3, 4]


def test_a_device_and_a_model_have_their_own_history(fleet):
    one, other = fleet.enrol(fleet.digests[0]), fleet.enrol(fleet.digests[0])
    path = f"/api/v1/devices/{one['device_id']}/events"
    found = fleet.call("GET", path)["items"]
    assert [(e["kind"], e["device_id"]) for e in found] == [("device.enrolled", one["device_id"])]
    found = fleet.call("GET", "/api/v1/models/m/events?order=oldest&filter=version==2")["items"]
    assert [e["kind"] for e in found] == ["version.uploaded"]
    assert other["device_id"] != one["device_id"]


REFUSED = [
    ("events?model=typo", 404, "model.not_found"),
    ("models/typo/events", 404, "model.not_found"),
    ("devices/typo/events", 404, "device.not_found"),
    ("events?filter=kind=", 422, "filter.syntax"),
    ("events?filter=nothing==1", 422, "filter.unknown_field"),
    ("events?since=2026-03-01T10:00:00", 422, "request.invalid"),
    ("events?since=0001-01-01T00:00:00%2B23:00", 422, "request.invalid"),
    ("events?version_id=9999999999999999999999", 422, "request.invalid"),
    ("events?kind=%00", 422, "request.invalid"),
    ("events?cursor=WzFd", 400, "request.bad_cursor"),
    ("events?cursor=WzEsLTFd", 400, "request.bad_cursor"),
    (f"events?cursor={encode([1 << 60, 1])}", 400, "request.bad_cursor"),
    (f"events/follow?cursor={encode([1 << 60, 1])}", 400, "request.bad_cursor"),
    ("events/export?filter=kind=", 422, "filter.syntax"),
    ("events/follow?model=typo", 404, "model.not_found"),
    ("events/follow?cursor=x", 400, "request.bad_cursor"),
]


def test_what_cannot_be_is_refused_with_a_code(fleet):
    for path, status, code in REFUSED:
        answer = fleet.call("GET", f"/api/v1/{path}", status=status)
        assert answer["code"] == code, path


def test_moments_are_in_utc(fleet):
    at = datetime.fromisoformat(fleet.call("GET", "/api/v1/events")["items"][0]["at"])
    assert at.utcoffset() == UTC.utcoffset(None)


def test_a_kind_that_there_is_not_is_told_with_those_there_are(fleet):
    for kind in ("vers", "version.", "version.upload", "%"):
        refused = fleet.call("GET", "/api/v1/events", status=422, params={"kind": kind})
        assert refused["code"] == "request.invalid"
        assert "version.uploaded" in refused["detail"]
    assert fleet.call("GET", "/api/v1/events?kind=webhook")["items"] == []
    with writing(fleet.server.app.state.engine) as session:
        record(session, "thing.of_an_earlier_version")
    assert fleet.call("GET", "/api/v1/events?kind=thing")["items"]


def test_a_rollout_that_there_is_not_is_told(fleet):
    for path in ("/api/v1/events", "/api/v1/events/export", "/api/v1/models/m/events"):
        refused = fleet.call("GET", f"{path}?rollout_id=9", status=404)
        assert refused["code"] == "rollout.not_found"
    rollout = fleet.roll_out(2)["id"]
    found = fleet.call("GET", f"/api/v1/events?rollout_id={rollout}&kind=rollout.created")
    assert len(found["items"]) == 1


def test_all_kinds_are_listed(checkout):
    """Those that the code names, and those that it makes of states."""
    sources = (path.read_text() for path in (checkout / "server").rglob("*.py"))
    called = re.compile(r'record(?:_each|_event)?\(\s*session,\s*"([a-z_.]+)"')
    named = {kind for source in sources for kind in called.findall(source)}
    assert len(named) > 30
    states = {f"assignment.{state}" for state in OF_DEVICES | OVERDUE}
    assert named | states <= set(KINDS)
    assert {*PROGRESS} - {"assignment.waiting"} <= set(KINDS)
