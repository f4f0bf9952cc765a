"""Every route says which role it needs, and no lower one passes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from server.app import create_app
from server.auth.needs import NEEDS
from server.auth.roles import ROLES
from server.settings import load_settings

#: Routes that are nobody's in particular: they tell nothing of anybody's things.
OPEN = {"GET /healthz", "GET /readyz"}


@pytest.fixture(scope="module")
def routes() -> set[str]:
    paths = create_app(load_settings()).openapi()["paths"]
    found = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    return {route for route in found if "/device/" not in route} - OPEN


def test_every_route_has_its_role_and_no_role_is_of_no_route(routes: set[str]) -> None:
    assert routes == set(NEEDS)


def test_the_table_in_the_documents_is_this_one(checkout: Path) -> None:
    page = (checkout / "docs" / "http-api.md").read_text(encoding="utf-8")
    section = page.split("\n## Who may ask\n")[1].split("\n## ")[0]
    told = {}
    for role, held, cell in re.findall(r"^\| (\w+) \| (.*) \| (`.*) \|$", section, re.MULTILINE):
        for route in re.findall(r"`([^`]+)`", cell):
            told[route] = (role, frozenset(re.findall(r"models|groups", held)))
    known = {route.replace("/api/v1", ""): need for route, need in NEEDS.items()}
    assert told == {route: (need.role, need.limited_by) for route, need in known.items()}


def ask(client: Any, route: str) -> Any:
    method, path = route.split(" ")
    return client.request(method, re.sub(r"{[^}]*}", "1", path), json={})


def test_without_a_key_or_with_a_wrong_one_nothing_answers(keys: Any, routes: set[str]) -> None:
    clients = [keys.client(None), keys.client("wrong"), keys.client(f"weft_{'0' * 12}_{'A' * 43}")]
    for route in sorted(routes):
        for client in clients:
            answer = ask(client, route)
            assert (answer.status_code, answer.json()["code"]) == (401, "request.unauthorized")


@pytest.mark.parametrize("role", ROLES[:-1])
def test_no_lower_role_passes_and_nothing_changes(keys: Any, routes: set[str], role: str) -> None:
    from tests.access.conftest import everything

    client = keys.as_(role)
    before = everything(keys.engine)
    refused = {r for r in routes if ROLES.index(NEEDS[r].role) > ROLES.index(role)}
    assert refused
    for route in sorted(refused):
        answer = ask(client, route)
        assert (answer.status_code, answer.json()["code"]) == (403, "request.forbidden"), route
        assert NEEDS[route].role in answer.json()["detail"]
    assert everything(keys.engine) == before


@pytest.mark.parametrize("role", ROLES)
def test_the_role_that_is_named_is_enough(keys: Any, routes: set[str], role: str) -> None:
    client = keys.as_(role)
    for route in sorted(r for r in routes if NEEDS[r].role == role and "follow" not in r):
        assert ask(client, route).status_code not in (401, 403), route


def test_a_route_without_a_role_answers_nobody(keys: Any) -> None:
    from server.auth import Operator

    async def nothing() -> None:
        """A route that somebody adds."""

    keys.server.app.add_api_route("/api/v1/new", nothing, dependencies=[Operator])
    answer = keys.admin.get("/api/v1/new")
    assert (answer.status_code, answer.json()["code"]) == (403, "request.forbidden")
