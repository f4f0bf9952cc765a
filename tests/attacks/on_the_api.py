"""Attacks on the server by whoever can send it requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from server.api import streams
from tests.attacks.attack import Act, Seen, attack, nothing, yes
from tests.attacks.plant import Plant

MODELS = "/api/v1/models"
KEYS = "/api/v1/access/keys"


@attack(
    "api",
    refused="request.unauthorized",
    told="nobody has this key",
    defence="server.auth.keys:same_hash",
    off=yes,
)
def a_key_with_another_secret(plant: Plant) -> Act:
    """Somebody who has seen the first half of a key makes up the other."""
    known = plant.key("admin")
    forged = known[:-43] + "A" * 43
    return lambda: plant.seen("POST", MODELS, forged, json={"name": "m"})


@attack(
    "api",
    refused="request.unauthorized",
    told="expired at",
    defence="server.auth.keys:now",
    off=lambda: datetime(2000, 1, 1, tzinfo=UTC),
)
def a_key_that_has_expired(plant: Plant) -> Act:
    """Somebody finds a key that was good until lately."""
    key = plant.key("admin", expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    _end(plant, "eve")
    return lambda: plant.seen("POST", MODELS, key, json={"name": "m"})


def _end(plant: Plant, name: str) -> None:
    """Have a key end a moment ago."""
    from sqlalchemy import update

    from server.db import writing
    from server.tables import ApiKey, now

    over = now() - timedelta(seconds=1)
    with writing(plant.server.app.state.engine) as session:
        session.execute(update(ApiKey).where(ApiKey.name == name).values(expires_at=over))


@attack(
    "api",
    refused="request.forbidden",
    told="needs the role admin; eve is viewer",
    defence="server.auth.roles:Principal.is_at_least",
    off=yes,
)
def a_viewer_makes_an_admin_of_itself(plant: Plant) -> Act:
    """Somebody who may look asks for a key that may do all."""
    key = plant.key("viewer")
    return lambda: plant.seen("POST", KEYS, key, json={"name": "root", "role": "admin"})


@attack(
    "api",
    refused="model.not_found",
    told="'other'",
    defence="server.auth.scope:_held",
    off=nothing,
)
def a_key_of_one_model_reads_another(plant: Plant) -> Act:
    """Somebody who looks after one model reads another customer's."""
    plant.model("own")
    plant.model("other")
    key = plant.key("operator", models=["own"])
    return lambda: plant.seen("GET", f"{MODELS}/other", key)


@attack(
    "api",
    refused="request.out_of_scope",
    told="held to some models",
    defence="server.auth.guard:_require",
    off=nothing,
)
def a_key_of_one_model_changes_all_groups(plant: Plant) -> Act:
    """Somebody who looks after one model makes a group of all devices."""
    plant.model("own")
    key = plant.key("operator", models=["own"])
    group = {"name": "all", "filter": "name==*"}
    return lambda: plant.seen("POST", "/api/v1/groups", key, json=group)


def _without_keys(plant: Plant) -> None:
    plant.settings = {"require_keys": False}
    plant.do("GET", MODELS, key=None)


@attack(
    "api",
    refused="request.forbidden_origin",
    told="is not this machine's loopback name",
    defence="server.auth.guard:LOOPBACK_NAMES",
    off=frozenset({"evil.example"}),
)
def a_name_that_leads_to_this_machine(plant: Plant) -> Act:
    """A page has its own name point to 127.0.0.1 (DNS rebinding) and speaks to a server there."""
    _without_keys(plant)
    foreign = {"Host": "evil.example"}
    return lambda: plant.seen("POST", MODELS, None, json={"name": "m"}, headers=foreign)


@attack(
    "api",
    refused="request.forbidden_origin",
    told="a page of 'https://evil.example' may not use this server",
    defence="server.auth.guard:_refuse_strangers",
    off=nothing,
)
def a_form_on_a_foreign_page(plant: Plant) -> Act:
    """A page has the browser of an operator post to a server on the same machine (CSRF)."""
    _without_keys(plant)
    foreign = {"Origin": "https://evil.example"}
    return lambda: plant.seen("POST", MODELS, None, json={"name": "m"}, headers=foreign)


@attack(
    "api",
    refused="request.invalid",
    told="nested more than 32 deep",
    defence="server.api.bodies:MAX_DEPTH",
    off=1 << 20,
)
def a_body_nested_too_deep(plant: Plant) -> Act:
    """Somebody sends brackets within brackets, for which writing them again fails."""
    deep = "[" * 200 + "]" * 200
    body = f'{{"name": "m", "buffers": [], "arguments": {{"a": {deep}}}}}'
    kind = {"Content-Type": "application/json"}
    return lambda: plant.seen("POST", MODELS, content=body, headers=kind)


@attack(
    "api",
    refused="request.rate_limited",
    told="too many requests",
    defence="server.api.limits:Buckets.wait",
    off=lambda *_: 0.0,
    then="device.unsigned",
)
def a_thousand_enrolment_tokens(plant: Plant) -> Act:
    """Somebody tries one enrolment token after the other."""
    plant.settings |= {"rate_enrolments": 1.0, "rate_burst": 3.0}
    body = {"name": "cam", "token": "a-token-of-mine"}
    tries = [plant.seen("POST", "/device/v1/enrol", None, json=body) for _ in range(5)]
    assert tries[0].code != "request.rate_limited"
    return lambda: plant.seen("POST", "/device/v1/enrol", None, json=body)


@attack(
    "api",
    refused="request.rate_limited",
    told="too many requests",
    defence="server.api.protocol:forwarding",
    off=lambda _: {"proxy_headers": True, "forwarded_allow_ips": "*"},
    then="request.unauthorized",
)
def an_address_that_was_made_up(plant: Plant) -> Act:
    """Somebody tries one key after the other, each time under another forwarded address."""
    plant.settings |= {"rate_others": 1.0, "rate_burst": 5.0}

    def act() -> Seen:
        plant.restart()
        for number in range(10):
            forwarded = {"X-Forwarded-For": f"192.0.2.{number}"}
            seen = plant.seen("GET", MODELS, "a-guess", headers=forwarded)
        return seen

    return act


@attack(
    "api",
    refused="service.overloaded",
    told="more requests are in work than this server takes on",
    defence="server.api.streams:MOST_STREAMS",
    off=1 << 30,
)
def followers_without_end(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Act:
    """Somebody who may look follows the history a thousand times at once."""
    monkeypatch.setattr(streams, "MOST_STREAMS", 3)
    key = plant.key("viewer")
    for _ in range(3):
        plant.follow(key)
    return lambda: plant.follow(key)
