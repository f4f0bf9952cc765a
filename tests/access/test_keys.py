"""API keys: made once, stored as a hash, ended by time or by hand, lost and made again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from server.auth import keys as keys_module
from server.auth.first_key import another_key
from server.db import reading, writing
from server.tables import ApiKey
from tests.access.conftest import ADMIN, Keys, everything

ACCESS = "/api/v1/access"


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_only_a_hash_of_a_key_is_stored_and_its_text_is_shown_once(keys: Keys) -> None:
    text = keys.make("ci", "operator")
    _, key_id, secret = text.split("_", 2)
    kept = str(everything(keys.engine)) + str(_rows(keys))
    assert key_id in kept
    assert secret not in kept
    assert secret not in keys.admin.get(f"{ACCESS}/keys").text


def test_a_key_is_whoever_it_is_named(keys: Keys) -> None:
    keys.admin.post("/api/v1/groups", json={"name": "line3", "filter": "tags==line3"})
    client = keys.as_("viewer", models=["digits"], groups=["line3"])
    name = "some-viewer-models.digits-groups.line3"
    assert client.get(f"{ACCESS}/me").json() == {
        "name": name,
        "role": "viewer",
        "models": ["digits"],
        "groups": ["line3"],
    }
    keys.server.app.state.key_uses.flush()
    (shown,) = keys.admin.get(f"{ACCESS}/keys").json()["items"]
    assert (shown["name"], shown["state"], shown["created_by"]) == (name, "active", "admin")
    assert shown["last_used_from"] == "127.0.0.1"
    assert shown["last_used_at"]


def test_a_revoked_key_opens_nothing_from_the_next_request_on(keys: Keys) -> None:
    client = keys.client(keys.make("ci", "viewer"))
    assert client.get("/api/v1/models").status_code == 200
    assert keys.admin.post(f"{ACCESS}/keys/ci/revoke").json()["state"] == "revoked"
    refused = client.get("/api/v1/models")
    assert code(refused) == (401, "request.unauthorized")
    assert "revoked" in refused.json()["detail"]
    again = keys.admin.post(f"{ACCESS}/keys", json={"name": "ci", "role": "viewer"})
    assert code(again) == (409, "access.exists")


def test_a_key_ends_when_its_time_is_over(keys: Keys) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    client = keys.client(keys.make("ci", "viewer", expires_at=soon))
    assert client.get("/api/v1/models").status_code == 200
    with writing(keys.engine) as session:
        session.execute(update(ApiKey).values(expires_at=datetime.now(UTC)))
    refused = client.get("/api/v1/models")
    assert code(refused) == (401, "request.unauthorized")
    assert "expired" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"name": "system", "role": "viewer"}, (422, "access.reserved")),
        ({"name": "admin", "role": "viewer"}, (422, "access.reserved")),
        (
            {"name": "0b9e1c9e-5b0c-4a55-9a0e-6a8e7f3f1c11", "role": "viewer"},
            (422, "access.reserved"),
        ),
        ({"name": "a", "role": "admin", "models": ["m"]}, (422, "access.not_held")),
        ({"name": "a", "role": "admin", "groups": ["g"]}, (422, "access.not_held")),
        ({"name": "a", "role": "viewer", "groups": ["g"]}, (404, "group.not_found")),
        (
            {"name": "a", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"},
            (422, "access.past"),
        ),
        ({"name": "a", "role": "root"}, (422, "request.invalid")),
        ({"name": "a b", "role": "viewer"}, (422, "request.invalid")),
        ({"name": "a", "role": "viewer", "models": []}, (422, "request.invalid")),
    ],
)
def test_a_key_that_cannot_be_is_refused(keys: Keys, body: Any, refusal: Any) -> None:
    before = _rows(keys)
    assert code(keys.admin.post(f"{ACCESS}/keys", json=body)) == refusal
    assert _rows(keys) == before


def test_both_halves_of_a_key_must_be_right(keys: Keys) -> None:
    one, other = keys.make("one", "viewer"), keys.make("other", "viewer")
    mixed = one[:18] + other[18:]
    wrong = (mixed, one[:-1], one + "A", one.upper(), one[5:], "weft__", "wëft_ü")
    for text in wrong:
        headers = {b"Authorization": f"Bearer {text}".encode()}
        answer = keys.client(None).get("/api/v1/models", headers=headers)
        assert answer.status_code == 401, text


def test_secrets_are_compared_in_constant_time_whether_or_not_there_is_a_row(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No comparison is left out, or time would tell which keys there are."""
    made = keys.make("one", "viewer")
    compared: list[tuple[str, str]] = []
    same = keys_module.same_hash

    def watched(given: str, wanted: str) -> bool:
        compared.append((given, wanted))
        return same(given, wanted)

    monkeypatch.setattr(keys_module, "same_hash", watched)
    for text in (made, f"weft_{'0' * 12}_{'A' * 43}", "no key at all"):
        keys.client(text).get("/api/v1/models")
    assert len(compared) == 3
    assert {len(part) for pair in compared for part in pair} == {64}


def test_a_new_server_has_one_key_and_no_open_plane(serve: Any) -> None:
    server = serve(require_keys=True)
    first = server.app.state.first_key
    assert server.client.get("/api/v1/models").status_code == 401
    bearer = {"Authorization": f"Bearer {first}"}
    assert server.client.get(f"{ACCESS}/me", headers=bearer).json()["role"] == "admin"
    server.stop()
    again = serve(require_keys=True)
    assert again.app.state.first_key is None
    assert again.client.get(f"{ACCESS}/me", headers=bearer).json()["name"] == "first"


def test_another_key_is_made_where_the_server_is(keys: Keys) -> None:
    client = keys.client(another_key(keys.engine, "recovered"))
    assert client.get(f"{ACCESS}/me").json()["role"] == "admin"
    told = client.get("/api/v1/events?kind=access").json()["items"]
    assert [(event["actor"], event["data"]["key"]) for event in told] == [("system", "recovered")]


def test_the_declared_key_is_an_admins(keys: Keys) -> None:
    assert keys.client(ADMIN).get(f"{ACCESS}/me").json()["name"] == "admin"
    assert keys.client(ADMIN + "x").get(f"{ACCESS}/me").status_code == 401


def _rows(keys: Keys) -> list[str]:
    with reading(keys.engine) as session:
        return sorted(map(repr, session.execute(select(ApiKey.__table__)).all()))
