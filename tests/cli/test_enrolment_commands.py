"""`weft tokens` and `weft devices`: letting devices in, holding them, and proving what they run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from server.db import writing
from server.tables import SignedReport
from shared.wire import split_pinned
from tests.conftest import Fleet
from tests.device_keys import DeviceKey


@pytest.fixture
def fleet(serve: Callable[..., Any], weights_file: Callable[..., Path]) -> Fleet:
    """Devices of a server in this process, whose database a test can change."""
    return Fleet(serve(), [weights_file(0), weights_file(1)])


@pytest.fixture
def ask(weft: Any, fleet: Fleet) -> Any:
    return lambda *words: weft(*words, "--json", "--server", fleet.server.url)


def test_a_token_from_the_command_line_enrols_a_device_that_is_accepted(
    ask: Any, fleet: Fleet
) -> None:
    made = ask("tokens", "create", "line 3", "--uses", "2", "--by-hand", "--tag", "line3").json
    device = fleet.enrol(None, name="gate", token=split_pinned(made["token"])[0])
    assert device["pending"] is True
    (listed,) = ask("tokens", "list").json["items"]
    assert (listed["uses"], "token" in listed) == (1, False)
    assert ask("devices", "accept", "gate").json["standing"] == "accepted"
    assert ask("tokens", "revoke", str(made["id"])).json["state"] == "revoked"
    assert ask("devices", "decommission", "gate").json["standing"] == "decommissioned"


def test_devices_are_bound_to_models(ask: Any, fleet: Fleet) -> None:
    made = ask("tokens", "create", "t", "--model", "m", "--model", "spare").json
    assert made["models"] == ["m", "spare"]
    row = ask("devices", "preauthorise", "gate", "--model", "m").json
    assert row["models"] == ["m"]
    fleet.enrol(None, name="gate", token=split_pinned(made["token"])[0])
    assert ask("devices", "show", "gate").json["allowed_models"] == ["m"]
    assert ask("devices", "allow", "gate", "--model", "other").json["allowed_models"] == ["other"]
    assert ask("devices", "allow", "gate", "--any-model").json["allowed_models"] is None


@pytest.mark.parametrize("words", [(), ("--any-model", "--model", "m")])
def test_which_models_is_said_in_one_way(ask: Any, words: tuple[str, ...]) -> None:
    assert ask("devices", "allow", "gate", *words).code == "command.invalid"


@pytest.mark.parametrize(
    ("words", "uses", "ends"),
    [((), 1, True), (("--fleet", "--for-ever"), None, False), (("--days", "0.5"), 1, True)],
)
def test_how_often_and_how_long(ask: Any, words: tuple[str, ...], uses: Any, ends: bool) -> None:
    made = ask("tokens", "create", "t", *words).json
    assert (made["max_uses"], made["expires_at"] is not None) == (uses, ends)


@pytest.mark.parametrize("words", [("--fleet", "--uses", "2"), ("--days", "1", "--for-ever")])
def test_what_contradicts_itself_is_refused(ask: Any, words: tuple[str, ...]) -> None:
    assert ask("tokens", "create", "t", *words).code == "command.invalid"


def test_a_device_gets_a_new_key_by_a_token_of_its_own(ask: Any, fleet: Fleet) -> None:
    device = fleet.enrol(None, name="gate")
    made = ask("devices", "reenrol", "gate", "--days", "1").json
    again = fleet.enrol(None, token=split_pinned(made["token"])[0])
    assert again["device_id"] == device["device_id"] == made["device_id"]


def test_expected_devices_are_listed_and_withdrawn(ask: Any, fleet: Fleet) -> None:
    key = DeviceKey()
    ask("devices", "preauthorise", "--device-key", key.public)
    row = ask("devices", "preauthorise", "gate", "--tag", "line3").json
    ask("devices", "preauthorised", "--withdraw", str(row["id"]))
    token = split_pinned(ask("tokens", "create", "t", "--by-hand").json["token"])[0]
    assert fleet.enrol(None, key=key, token=token)["pending"] is False
    assert [r["key"] for r in ask("devices", "preauthorised").json["items"]] == [key.public]


def test_what_runs_is_proven_by_signatures(ask: Any, fleet: Fleet) -> None:
    device = fleet.enrol(fleet.digests[0], name="gate")
    fleet.report(device, None, fleet.digests[0], state="idle")
    fleet.report(device, None, fleet.digests[1])
    (proof,) = ask("devices", "prove", "gate").json["items"]
    assert (proof["verified"], proof["weights_digest"]) == (True, fleet.digests[1])
    assert len(ask("devices", "prove", "gate", "--all").json["items"]) == 2
    known = ("--device-key", device["key"].public)
    assert ask("devices", "prove", "gate", *known).json["items"][0]["verified"] is True
    other = ask("devices", "prove", "gate", "--device-key", DeviceKey().public)
    assert (other.status, other.code) == (1, "device.bad_signature")


@pytest.mark.parametrize("changed", ["weights_digest", "body", "signature", "device"])
def test_what_a_server_has_changed_is_not_proven(ask: Any, fleet: Fleet, changed: str) -> None:
    device = fleet.enrol(fleet.digests[0], name="gate")
    fleet.report(device, None, fleet.digests[1])
    (row,) = ask("devices", "prove", "gate").json["items"]
    said = json.loads(row["body"]) | {"weights_digest": fleet.digests[0]}
    forged = DeviceKey().sign("report", device["device_id"], row["body"].encode())
    values = {
        "weights_digest": {"weights_digest": fleet.digests[0]},
        "body": {"body": json.dumps(said), "weights_digest": fleet.digests[0]},
        "signature": {"signature": forged},
        "device": {"device_id": fleet.enrol(None, name="other")["device_id"]},
    }[changed]
    with writing(fleet.server.app.state.engine) as session:
        session.execute(update(SignedReport).values(**values))
    name = "other" if changed == "device" else "gate"
    assert ask("devices", "prove", name, "--all").code == "device.bad_signature"


def test_the_server_s_words_are_shown(ask: Any) -> None:
    assert ask("tokens", "revoke", "7").code == "device.token_not_found"


def test_whoever_waits_is_seen_in_the_list(weft: Any, ask: Any, fleet: Fleet) -> None:
    token = split_pinned(ask("tokens", "create", "t", "--by-hand").json["token"])[0]
    fleet.enrol(fleet.digests[0], token=token)
    fleet.enrol(fleet.digests[0])
    out = weft("devices", "list", "--server", fleet.server.url).out
    assert [line.count("pending, m 1") for line in out.splitlines()] == [0, 0, 1]
