"""What an agent hears: enrolment, polls, packages, reports."""

from __future__ import annotations

import pytest

from tests.device_keys import DeviceKey


def test_enrolment_gives_an_identity(fleet):
    device = fleet.enrol(fleet.digests[0])
    assert fleet.poll(device).json()["models"] == []
    shown = fleet.call("GET", f"/api/v1/devices/{device['device_id']}")
    (held,) = shown["models"]
    assert (shown["name"], held["version"], held["weights_digest"]) == ("cam", 1, fleet.digests[0])
    assert shown["last_seen_at"] is not None
    assert device["token"] not in str(shown)


@pytest.mark.parametrize(
    ("settings", "code"),
    [({}, "device.bad_enrolment_token"), ({"enrolment_token": None}, "device.enrolment_closed")],
)
def test_enrolment_needs_the_token(serve, settings, code):
    server = serve(**settings)
    body = {"name": "cam", "token": "another-token"}
    answer = server.client.post("/device/v1/enrol", **DeviceKey().enrolment(body))
    assert (answer.status_code, answer.json()["code"]) == (403, code)


def test_an_unknown_token_is_no_device(fleet):
    stranger = {"headers": {"Authorization": "Bearer guess"}}
    answer = fleet.poll(stranger)
    assert (answer.status_code, answer.json()["code"]) == (401, "device.unauthorized")


def test_an_idle_poll_is_not_modified_and_small(fleet):
    device = fleet.enrol(fleet.digests[0])
    first = fleet.poll(device)
    idle = fleet.poll(device, first.headers["etag"])
    assert (idle.status_code, idle.content) == (304, b"")
    assert idle.headers["etag"] == first.headers["etag"]
    assert idle.headers["cache-control"] == "private"
    assert 54 <= float(idle.headers["weft-poll-interval"]) <= 66
    assert len(idle.headers.raw) <= 6
    assert sum(len(name) + len(value) + 4 for name, value in idle.headers.raw) < 300


def test_a_rollout_offers_the_direct_package(fleet):
    sha = fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    etag = fleet.poll(device).headers["etag"]
    fleet.roll_out(2)
    answer = fleet.poll(device, etag)
    assert answer.status_code == 200
    assert answer.headers["etag"] != etag
    (offer,) = answer.json()["models"]
    assert offer["package"] == {
        "sha256": sha,
        "size": 11,
        "url": f"/device/v1/packages/{sha}",
        "base_digest": fleet.digests[0],
        "method": "ka",
    }
    assert (offer["version"], offer["weights_digest"]) == (2, fleet.digests[1])
    assert "held" not in offer
    assert fleet.poll(device, answer.headers["etag"]).status_code == 304
    assert fleet.poll(device, f'"0", W/{answer.headers["etag"]}').status_code == 304


def test_what_goes_without_saying_is_not_sent(fleet):
    idle = fleet.poll(fleet.enrol(fleet.digests[0]))
    assert idle.content == b'{"models":[]}'
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    fleet.roll_out(2)
    (offer,) = fleet.poll(device).json()["models"]
    assert offer.keys() == {"model", "version", "weights_digest", "assignment", "package"}


def test_a_slot_that_holds_the_version_needs_no_package(fleet):
    device = fleet.enrol(models={"m": {"slots": fleet.digests, "current": fleet.digests[0]}})
    fleet.roll_out(2)
    offer = fleet.offer(device)
    assert (offer["package"], offer["held"]) == (None, None)


def test_a_full_package_is_built_for_a_device_that_holds_nothing(fleet, tmp_path):
    from shared.decode import decode
    from shared.package import PackageReader

    device = fleet.enrol(None)
    fleet.roll_out(2)
    held = fleet.poll(device)
    assert held.json()["models"][0]["held"] == "package_being_built"
    assert float(held.headers["weft-poll-interval"]) <= 5.5
    fleet.server.app.state.building.close()  # waits for the build
    offered = fleet.poll(device, held.headers["etag"])
    (offer,) = offered.json()["models"]
    assert offered.headers["etag"] != held.headers["etag"]
    assert ("held" in offer, offer["package"]["base_digest"]) == (False, None)
    content = fleet.server.client.get(offer["package"]["url"], headers=device["headers"]).content
    (tmp_path / "p").write_bytes(content)
    with PackageReader(tmp_path / "p") as package, (tmp_path / "out").open("w+b") as out:
        assert decode(None, package, out).hex() == fleet.digests[1]


def test_a_device_that_cannot_decode_is_held_until_something_suits(fleet):
    fleet.publish(1, 2, b"a ka package")
    device = fleet.enrol(fleet.digests[0], capabilities={"methods": {"direct": 1}})
    fleet.roll_out(2)
    held = fleet.poll(device)
    assert held.json()["models"][0]["held"] == "cannot_decode"
    assert fleet.poll(device, held.headers["etag"]).status_code == 304
    more = {"result": "failed_no_change", "state": "failed", "slots": fleet.digests}
    fleet.report(device, None, fleet.digests[0], **more)
    freed = fleet.poll(device, held.headers["etag"])
    assert "held" not in freed.json()["models"][0]


def test_a_package_resumes(fleet):
    sha = fleet.publish(1, 2, b"0123456789")
    device = fleet.enrol(fleet.digests[0])
    get, url = fleet.server.client.get, f"/device/v1/packages/{sha}"
    whole = get(url, headers=device["headers"])
    assert (whole.status_code, whole.headers["etag"]) == (200, f'"{sha}"')
    assert "content-encoding" not in whole.headers
    condition = {"Range": "bytes=4-", "If-Range": f'"{sha}"'}
    rest = get(url, headers=device["headers"] | condition)
    assert (rest.status_code, rest.content) == (206, b"456789")
    assert rest.headers["content-range"] == "bytes 4-9/10"
    changed = get(url, headers=device["headers"] | condition | {"If-Range": '"x"'})
    assert (changed.status_code, changed.content) == (200, b"0123456789")


def test_packages_are_for_devices_of_the_model(fleet):
    sha = fleet.publish(1, 2, b"0123456789")
    stranger = fleet.enrol(models={"other": {}})
    get = fleet.server.client.get
    refused = get(f"/device/v1/packages/{sha}", headers=stranger["headers"])
    assert (refused.status_code, refused.json()["code"]) == (404, "device.package_not_found")
    assert get(f"/device/v1/packages/{sha}").status_code == 401


def test_packages_to_what_was_withdrawn_are_sent_no_more(fleet):
    """Also to a device that was told of them, and is in the middle of one."""
    fleet.release(1, 2)
    sha = fleet.publish(1, 2, b"0123456789")
    device = fleet.enrol(fleet.digests[0])
    request = {"url": f"/device/v1/packages/{sha}", "headers": device["headers"]}
    assert fleet.server.client.get(**request).status_code == 200
    fleet.call("POST", "/api/v1/models/m/versions/2/withdraw")
    refused = fleet.server.client.get(**request)
    assert (refused.status_code, refused.json()["code"]) == (404, "device.package_not_found")


def test_a_report_becomes_what_is_known(fleet):
    fleet.publish(1, 2, b"the package")
    device = fleet.enrol(fleet.digests[0])
    rollout = fleet.roll_out(2)
    before = fleet.poll(device)
    assignment = before.json()["models"][0]["assignment"]
    answer = fleet.report(device, assignment, fleet.digests[1], health="passed", seconds=1.5)
    assert (answer.status_code, answer.json()) == (200, {})
    (held,) = fleet.call("GET", f"/api/v1/devices/{device['device_id']}")["models"]
    assert (held["version"], held["state"], held["health"]) == (2, "committed", "passed")
    after = fleet.poll(device, before.headers["etag"])
    assert after.json()["models"] == []
    shown = fleet.call("GET", f"/api/v1/rollouts/{rollout['id']}")
    assert (shown["state"], shown["assignments"]) == ("finished", {"committed": 1})


def test_a_repeated_report_is_answered_alike_and_counts_once(fleet):
    device = fleet.enrol(fleet.digests[0])
    for _ in range(2):
        answer = fleet.report(device, None, fleet.digests[0], counter=7)
        assert (answer.status_code, answer.json()) == (200, {})
    for counter, digest in ((7, fleet.digests[1]), (6, fleet.digests[0])):
        refused = fleet.report(device, None, digest, counter=counter)
        assert (refused.status_code, refused.json()["code"]) == (409, "device.counter_reused")
    events = fleet.call("GET", "/api/v1/events?kind=device.reported")["items"]
    assert len(events) == 1


def test_a_report_on_another_device_s_assignment_is_refused(fleet):
    fleet.publish(1, 2, b"the package")
    device, other = fleet.enrol(fleet.digests[0]), fleet.enrol(fleet.digests[0])
    fleet.roll_out(2)
    assignment = fleet.offer(device)["assignment"]
    refused = fleet.report(other, assignment, fleet.digests[1])
    assert (refused.status_code, refused.json()["code"]) == (404, "device.unknown_assignment")
    assert fleet.offer(other)["assignment"] != assignment


def test_sightings_are_written_at_the_end(serve, fleet):
    device = fleet.enrol(fleet.digests[0])
    enrolled = fleet.call("GET", f"/api/v1/devices/{device['device_id']}")["last_seen_at"]
    fleet.poll(device)
    seen = fleet.call("GET", f"/api/v1/devices/{device['device_id']}")["last_seen_at"]
    assert seen > enrolled
    fleet.server.stop()
    again = serve()
    shown = again.client.get(f"/api/v1/devices/{device['device_id']}").json()
    assert shown["last_seen_at"] == seen


def test_devices_are_listed_by_model(fleet):
    mine, other = fleet.enrol(None), fleet.enrol(models={"other": {}})
    listed = fleet.call("GET", "/api/v1/devices?model=m")["items"]
    assert [d["id"] for d in listed] == [mine["device_id"]]
    listed = fleet.call("GET", "/api/v1/devices")["items"]
    assert {d["id"] for d in listed} == {mine["device_id"], other["device_id"]}
    missing = fleet.call("GET", "/api/v1/devices/none", status=404)
    assert missing["code"] == "device.not_found"
