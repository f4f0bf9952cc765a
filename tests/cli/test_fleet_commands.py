"""`weft devices` and `weft groups`, against a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.device_keys import DeviceKey

TOKEN = "enrol-me-please"


@pytest.fixture(scope="module")
def fleet_server(tmp_path_factory: pytest.TempPathFactory, lasting_databases: Any) -> Any:
    from tests.cli.conftest import ServerProcess

    data = tmp_path_factory.mktemp("fleet")
    environment = {**lasting_databases.environment(data), "WEFT_ENROLMENT_TOKEN": TOKEN}
    process = ServerProcess(data, **environment)
    yield process.url
    assert process.stop()[0] == 0


@pytest.fixture
def ask(weft: Any, fleet_server: str) -> Any:
    return lambda *words: weft(*words, "--json", "--server", fleet_server)


@pytest.fixture
def enrol(fleet_server: str) -> Callable[..., str]:
    """A new device; its id."""

    def enrol(name: str, **more: Any) -> str:
        body = {"name": name, "token": TOKEN, "models": {"digits": {}}} | more
        request = DeviceKey().enrolment(body)
        answer = httpx.post(f"{fleet_server}/device/v1/enrol", **request, verify=False)
        return str(answer.raise_for_status().json()["device_id"])

    return enrol


def test_devices_are_named_by_id_or_name(ask: Any, enrol: Any) -> None:
    id_ = enrol('cam "*" 1', attributes={"gpu": "orin"})
    enrol('cam "x" 1')
    for name in (id_, 'cam "*" 1'):
        assert ask("devices", "show", name).json["attributes"] == {"gpu": "orin"}
    assert ask("devices", "rename", id_, "cam-1").json["name"] == "cam-1"
    assert ask("devices", "clear-failures", "cam-1").json["failures"] == 0
    missing = ask("devices", "show", "nobody")
    assert (missing.status, missing.code) == (1, "device.not_found")


def test_a_name_that_several_have_is_refused_with_their_ids(ask: Any, enrol: Any) -> None:
    ids = {enrol("twin"), enrol("twin")}
    refused = ask("devices", "rename", "twin", "one")
    assert (refused.status, refused.code) == (1, "device.ambiguous")
    assert all(id_ in refused.err for id_ in ids)


def test_devices_are_tagged_one_by_one_and_by_filter(ask: Any, enrol: Any) -> None:
    for name in ("row1", "row2", "row3"):
        enrol(name)
    counts = ask("devices", "tag", "a", "b", "--device", "row1", "--device", "row2").json
    assert counts == {"matched": 2, "changed": 2}
    assert ask("devices", "tag", "a", "--filter", "name==row*").json["changed"] == 1
    assert ask("devices", "untag", "b", "--filter", "tags==b").json["changed"] == 2
    assert ask("devices", "show", "row1").json["tags"] == ["a"]
    listed = ask("devices", "list", "--filter", "tags==a", "--sort", "name").json["items"]
    assert [device["name"] for device in listed] == ["row1", "row2", "row3"]
    for words in ([], ["--device", "row1", "--filter", "id==*"]):
        assert ask("devices", "tag", "a", *words).code == "command.invalid"
    assert ask("devices", "list", "--filter", "tagz==a").code == "filter.unknown_field"


def test_a_name_that_is_wrong_leaves_all_devices_as_they_are(ask: Any, enrol: Any) -> None:
    enrol("tagged-first")
    done = ask("devices", "tag", "x", "--device", "tagged-first", "--device", "nobody")
    assert (done.status, done.code) == (1, "device.not_found")
    assert ask("devices", "show", "tagged-first").json["tags"] == []


def test_silent_devices_are_listed(ask: Any, enrol: Any) -> None:
    enrol("heard")
    assert ask("devices", "list", "--silent-for", "1h").json["items"] == []
    words = ["--silent-for", "0s", "--filter", "name==heard,name==x"]
    heard = ask("devices", "list", *words).json["items"]
    assert [device["name"] for device in heard] == ["heard"]
    assert ask("devices", "list", "--silent-for", "long").code == "command.invalid"


def test_a_group_lives(ask: Any, enrol: Any) -> None:
    enrol("g1", attributes={"link": "uhf"})
    words = ["sats", "attr.link==uhf", "--poll-interval", 5400, "--update-budget", 65536]
    made = ask("groups", "create", *words).json
    assert (made["devices"], made["poll_interval"], made["update_budget"]) == (1, 5400, 65536)
    assert ask("groups", "show", "sats").json == made
    assert [group["name"] for group in ask("groups", "list").json["items"]] == ["sats"]
    (member,) = ask("groups", "devices", "sats").json["items"]
    assert (member["name"], member["poll_interval"]) == ("g1", 5400)
    changed = ask("groups", "update", "sats", "--name", "s", "--poll-interval", "default").json
    assert (changed["name"], changed["poll_interval"], changed["update_budget"]) == (
        "s",
        None,
        65536,
    )
    assert ask("groups", "update", "s", "--filter", "group==s").code == "group.circular"
    assert ask("groups", "update", "s", "--update-budget", "lots").code == "command.invalid"
    assert ask("groups", "delete", "s").json == {"deleted": "s"}
    assert ask("groups", "delete", "s").code == "group.not_found"


def test_a_device_is_shown_in_lines_that_fit(weft: Any, fleet_server: str, enrol: Any) -> None:
    enrol("shown", attributes={"gpu": "orin", "line": "3"})
    out = weft("devices", "show", "shown", "--server", fleet_server).out
    assert max(map(len, out.splitlines())) <= 100
    assert "gpu=orin, line=3" in out
    assert out.splitlines()[-1].split()[:5] == ["digits", "-", "-", "-", "idle"]


def test_tables_fit_a_terminal(weft: Any, fleet_server: str, enrol: Any) -> None:
    enrol("camera-in-hall-number-7")
    at = ["--server", fleet_server]
    assert weft("devices", "tag", "line3", "--device", "camera-in-hall-number-7", *at).status == 0
    out = weft("devices", "list", "--filter", "name==camera-in-hall-number-7", *at).out
    head, row = out.splitlines()
    assert head.split() == ["name", "id", "tags", "runs", "failures", "last_seen_at"]
    assert "digits ?" in row
    weft("groups", "create", "line3", "tags==line3", *at)
    assert weft("groups", "list", *at).out.splitlines()[1].split() == [
        "line3",
        "tags==line3",
        "-",
        "-",
    ]
