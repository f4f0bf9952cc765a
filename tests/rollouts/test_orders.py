"""Orders over HTTP: what a rollout may be told, and when; what it shows."""

from __future__ import annotations

WHOLE = {
    "filter": "attr.gpu==orin",
    "phases": [{"percent": 10, "soak_seconds": 3600}, {"percent": 100, "soak_seconds": 0}],
    "max_open": 5,
    "success_percent": 95.0,
    "abort_rules": [{"kind": "timed_out", "percent": 10.0, "min_count": 2}],
    "deadline_seconds": 7200,
    "window": {"cron": "0 2 * * *", "duration_seconds": 3600, "time_zone": "Europe/Berlin"},
    "rollback": True,
    "strategy": "doubling",
}


def start(fleet, **body):
    return fleet.call("POST", "/api/v1/rollouts", json={"model": "m", "version": 2} | body)


def order(fleet, rollout, what, status=None, **body):
    url = f"/api/v1/rollouts/{rollout['id']}/{what}"
    return fleet.call("POST", url, status=status, **({"json": body} if body else {}))


def test_it_shows_what_was_asked_for(fleet):
    rollout = start(fleet, **WHOLE, start=False)
    shown = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")
    assert {name: shown[name] for name in WHOLE} == WHOLE
    assert (shown["state"], shown["started_at"], shown["devices"]) == ("ready", None, 0)


def test_it_shows_whom_nothing_can_be_offered_and_why(fleet):
    """An older version, without the mark, to one that has the newer one and one that has it not."""
    devices = [fleet.enrol(digest) for digest in reversed(fleet.digests)]
    rollout = start(fleet, version=1, phases=[{"percent": 100}])
    assert fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")["held"] == {}
    fleet.poll(devices[0])
    shown = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")
    assert (shown["assignments"], shown["held"]) == (
        {"committed": 1, "idle": 1},
        {"needs_rollback_mark": 1},
    )
    (phase,) = shown["progress"]
    assert (phase["quota"], phase["percent"], phase["soak_seconds"]) == (2, 100, 0)
    order(fleet, rollout, "abort")
    assert fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")["held"] == {}


NONSENSE = [
    ({"phases": []}, "phases"),
    ({"phases": [{"percent": 50}]}, "100"),
    ({"phases": [{"percent": 50}, {"percent": 50}, {"percent": 100}]}, "rise"),
    ({"phases": [{"percent": 0}, {"percent": 100}]}, "percent"),
    ({"max_open": 0}, "max_open"),
    ({"success_percent": 101}, "success_percent"),
    ({"abort_rules": [{"kind": "sad", "percent": 5}]}, "kind"),
    ({"abort_rules": [{"kind": "failed", "percent": 5, "min_count": 0}]}, "min_count"),
    ({"deadline_seconds": 0}, "deadline_seconds"),
    ({"window": {"cron": "often", "duration_seconds": 60}}, "cron"),
    ({"window": {"cron": "0 0 31 2 *", "duration_seconds": 60}}, "cron"),
    ({"window": {"cron": "0 2 * * *", "duration_seconds": 5}}, "duration_seconds"),
    (
        {"window": {"cron": "0 2 * * *", "duration_seconds": 60, "time_zone": "Mars"}},
        "time_zone",
    ),
    ({"strategy": "hope"}, "strategy"),
    ({"filter": ""}, "filter"),
    ({"percent": 5}, "percent"),
]


def test_nonsense_is_named(fleet):
    for wrong, named in NONSENSE:  # one server for all
        body = {"model": "m", "version": 2} | wrong
        refused = fleet.call("POST", "/api/v1/rollouts", status=422, json=body)
        assert refused["code"] == "request.invalid", wrong
        assert named in refused["detail"], wrong


def test_a_filter_that_means_nothing_is_refused(fleet):
    body = {"model": "m", "version": 2, "filter": "colour==red"}
    refused = fleet.call("POST", "/api/v1/rollouts", status=422, json=body)
    assert refused["code"] == "filter.unknown_field"
    assert fleet.call("GET", "/api/v1/rollouts")["items"] == []


def test_orders_fit_the_state(fleet):
    fleet.enrol(fleet.digests[0])
    rollout = start(fleet, start=False)
    for what in ("pause", "resume", "retry", "roll_back"):
        assert order(fleet, rollout, what, status=409)["code"] == "rollout.wrong_state"
    assert order(fleet, rollout, "start")["assignments"] == {"idle": 1}
    assert order(fleet, rollout, "start", status=409)["code"] == "rollout.wrong_state"
    paused = order(fleet, rollout, "pause")
    assert (paused["state"], paused["reason"]["code"]) == ("paused", "paused")
    resumed = order(fleet, rollout, "resume")
    assert (resumed["state"], resumed["reason"]["code"]) == ("active", "updating")
    assert order(fleet, rollout, "retry", status=409)["code"] == "rollout.nothing_to_retry"
    aborted = order(fleet, rollout, "abort")
    assert (aborted["state"], aborted["reason"]["code"]) == ("aborted", "operator")
    for what in ("start", "pause", "resume", "abort", "retry"):
        assert order(fleet, rollout, what, status=409)["code"] == "rollout.not_active"


def test_one_device_is_retried(fleet):
    fleet.publish(1, 2, b"forward")
    first, second = fleet.enrol(fleet.digests[0]), fleet.enrol(fleet.digests[0])
    rollout = start(fleet)
    gone = {"result": "failed_no_change", "state": "failed"}
    for device in (first, second):
        fleet.report(device, fleet.offer(device)["assignment"], fleet.digests[0], **gone)
    again = order(fleet, rollout, "retry", device_id=first["device_id"])
    assert (again["state"], again["assignments"]) == ("active", {"failed": 1, "idle": 1})
    fleet.report(first, fleet.offer(first)["assignment"], fleet.digests[1])
    url = f"/api/v1/rollouts/{rollout['id']}/assignments?state=committed"
    (shown,) = fleet.call("GET", url)["items"]
    assert (shown["device_id"], shown["attempts"]) == (first["device_id"], 2)


def test_devices_go_back_to_what_they_had(fleet):
    fleet.publish(1, 2, b"forward")
    fleet.publish(2, 1, b"back")
    device = fleet.enrol(fleet.digests[0])
    rollout = start(fleet)
    fleet.report(device, fleet.offer(device)["assignment"], fleet.digests[1])
    refused = order(fleet, rollout, "roll_back", status=422, version=2)
    assert refused["code"] == "rollout.wrong_version"
    back = order(fleet, rollout, "roll_back")
    assert (back["version"], back["rollback"], back["rolls_back_id"]) == (1, True, rollout["id"])
    offer = fleet.offer(device)
    assert (offer["version"], offer["held"]) == (1, None)
    fleet.report(device, offer["assignment"], fleet.digests[0])
    assert fleet.call("GET", f"/api/v1/rollouts/{back['id']}")["state"] == "finished"


def test_without_a_known_version_before_it_must_be_named(fleet):
    fleet.enrol(None)
    rollout = start(fleet)
    refused = order(fleet, rollout, "roll_back", status=409)
    assert refused["code"] == "rollout.no_previous_version"
    assert fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")["state"] == "active"


def test_lists_are_filtered(fleet):
    start(fleet)
    start(fleet, version=1, rollback=True)
    get = "/api/v1/rollouts?filter="
    assert [r["version"] for r in fleet.call("GET", get + "rollback==true")["items"]] == [1]
    assert [r["version"] for r in fleet.call("GET", get + "version==2")["items"]] == [2]
    refused = fleet.call("GET", get + "nothing==1", status=422)
    assert refused["code"] == "filter.unknown_field"
