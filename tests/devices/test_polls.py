"""Polls: what they cost on the wire, what an ETag means, how long a device waits for the next."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from sqlalchemy import update

from server.db import writing
from server.tables import Device, Installation

BUDGET = 300


def exchange(server, request: str) -> bytes:
    """All bytes of the answer to one request on a connection of its own."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(request.encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_an_idle_poll_stays_within_its_budget_on_the_wire(fleet):
    device = fleet.enrol(fleet.digests[0])
    etag = fleet.poll(device).headers["etag"]
    answer = exchange(
        fleet.server,
        "GET /device/v1/desired HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {device['token']}\r\nIf-None-Match: {etag}\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 304 ")
    assert answer.endswith(b"\r\n\r\n")
    # The largest generation there can be, on a connection that stays open, is 18 digits more.
    assert len(answer) + 18 <= BUDGET


def test_the_etag_is_the_epoch_and_the_generation(fleet):
    device = fleet.enrol(fleet.digests[0])
    state = fleet.server.app.state
    assert fleet.poll(device).headers["etag"] == f'"{state.epoch}-1"'
    with writing(state.engine) as session:
        session.execute(update(Device).values(generation=7))
    assert fleet.poll(device, f'"{state.epoch}-1"').headers["etag"] == f'"{state.epoch}-7"'


def test_a_generation_of_before_a_restore_means_nothing(serve, fleet):
    device = fleet.enrol(fleet.digests[0])
    etag = fleet.poll(device).headers["etag"]
    assert fleet.poll(device, etag).status_code == 304
    with writing(fleet.server.app.state.engine) as session:
        session.execute(update(Installation).values(epoch="restored"))
    fleet.server.stop()
    fleet.server = serve()
    after = fleet.poll(device, etag)
    assert (after.status_code, after.headers["etag"]) == (200, '"restored-1"')


def test_the_interval_of_a_device_goes_before_that_of_the_server(fleet):
    device = fleet.enrol(fleet.digests[0])
    first = fleet.poll(device)
    assert 54 <= float(first.headers["weft-poll-interval"]) <= 66
    with writing(fleet.server.app.state.engine) as session:
        session.execute(update(Device).values(poll_interval=600.0))
    for answer in (fleet.poll(device), fleet.poll(device, first.headers["etag"])):
        assert 540 <= float(answer.headers["weft-poll-interval"]) <= 660


def test_intervals_jitter(fleet):
    device = fleet.enrol(fleet.digests[0])
    assert len({fleet.poll(device).headers["weft-poll-interval"] for _ in range(5)}) > 1


def test_who_shows_no_token_of_a_device_is_refused(fleet):
    device = fleet.enrol(fleet.digests[0])
    for shown in ("", "Bearer", "Basic dGVzdDp0ZXN0", "Bearer \x85", f"Token {device['token']}"):
        headers = {"Authorization": shown.encode("latin-1")} if shown else {}
        answer = fleet.server.client.get("/device/v1/desired", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "device.unauthorized"), shown
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_scheme_may_be_written_in_any_case(fleet):
    device = fleet.enrol(fleet.digests[0])
    headers = {"Authorization": f"bearer {device['token']}"}
    assert fleet.server.client.get("/device/v1/desired", headers=headers).status_code == 200


def test_a_device_that_is_held_waits_for_no_writer(fleet):
    device = fleet.enrol(fleet.digests[0], capabilities={"methods": {"direct": 1}})
    fleet.roll_out(2)
    etag = fleet.poll(device).headers["etag"]
    with writing(fleet.server.app.state.engine):
        again, anew = fleet.poll(device, etag), fleet.poll(device)
    assert (again.status_code, anew.status_code) == (304, 200)
    assert anew.json()["models"][0]["held"] == "no_suitable_package"


def test_a_removed_device_is_refused_at_once(fleet):
    device = fleet.enrol(fleet.digests[0])
    fleet.poll(device)
    with writing(fleet.server.app.state.engine) as session:
        session.execute(update(Device).values(token_hash="of another token"))
    assert fleet.poll(device).status_code == 401


def test_other_methods_are_refused(fleet):
    answer = fleet.server.client.post("/device/v1/desired")
    assert (answer.status_code, answer.json()["code"]) == (405, "request.method_not_allowed")


def test_it_is_documented_like_any_other_route(server):
    operation = server.client.get("/openapi.json").json()["paths"]["/device/v1/desired"]["get"]
    assert operation["security"] == [{"device token": []}]
    assert [p["name"] for p in operation["parameters"]] == ["If-None-Match"]
    assert {"200", "304", "401", "503"} <= operation["responses"].keys()
    assert "ETag" in operation["responses"]["304"]["headers"]
