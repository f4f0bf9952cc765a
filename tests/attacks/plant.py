"""A server that asks for keys, and all that an attacker could want to change in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from server.db import reading
from server.tables import Base
from tests.attacks.attack import Seen

ADMIN = "an-admin-key-that-nobody-guesses"
BINARY = {"Content-Type": "application/octet-stream"}

#: What changes by itself: who holds a duty until when, and when somebody was seen.
_TABLES = frozenset({"leases"})
_COLUMNS = frozenset({"last_used_at", "last_used_from", "last_seen_at"})


class Plant:
    """The server is started at the first use, so that a scene can choose its settings before."""

    def __init__(self, serve: Callable[..., Any], weights_file: Callable[..., Path]) -> None:
        self._serve, self.weights_file = serve, weights_file
        self.settings: dict[str, Any] = {"admin_key": ADMIN}
        self._server: Any = None
        self._followed: list[Iterator[str]] = []

    @property
    def server(self) -> Any:
        if self._server is None:
            self._server = self._serve(**self.settings)
        return self._server

    def restart(self) -> None:
        """The same server, anew."""
        self.server.stop()
        self._server = None

    def ask(
        self, method: str, path: str, key: str | None = ADMIN, **request: Any
    ) -> httpx.Response:
        """The whole answer; by default an admin asks."""
        given = {"Authorization": f"Bearer {key}"} if key else {}
        headers = given | request.pop("headers", {})
        answer: httpx.Response = self.server.client.request(
            method, path, headers=headers, **request
        )
        return answer

    def do(self, method: str, path: str, **request: Any) -> Any:
        """As `ask`, of what is no attack."""
        answer = self.ask(method, path, **request)
        assert answer.is_success, answer.text
        return answer.json()

    def seen(self, method: str, path: str, key: str | None = ADMIN, **request: Any) -> Seen:
        """As `ask`, of what is one."""
        return told(self.ask(method, path, key, **request))

    def follow(self, key: str) -> Seen:
        """Begin to follow the history, and do not end."""
        headers = {"Authorization": f"Bearer {key}"}
        request = self.server.client.build_request("GET", "/api/v1/events/follow", headers=headers)
        answer = self.server.client.send(request, stream=True)
        if answer.is_success:
            lines = answer.iter_lines()
            next(lines)  # it has begun
            self._followed.append(lines)
            return Seen(None)
        answer.read()
        return told(answer)

    def key(self, role: str = "viewer", name: str = "eve", **more: Any) -> str:
        """A new key of an operator."""
        wanted = {"name": name, "role": role, **more}
        return str(self.do("POST", "/api/v1/access/keys", json=wanted)["key"])

    def model(self, name: str = "m") -> None:
        self.do("POST", "/api/v1/models", json={"name": name})

    def upload(self, content: Any, model: str = "m") -> httpx.Response:
        path = f"/api/v1/models/{model}/versions"
        return self.ask("POST", path, content=content, headers=BINARY)

    def state(self) -> object:
        """All rows of all tables, and the names of all blobs."""
        blobs = self.server.settings.blobs_dir
        found = {p.name: p.stat().st_size for p in blobs.rglob("*") if p.is_file()}
        return self._rows(), found

    def _rows(self) -> dict[str, list[tuple[Any, ...]]]:
        rows = {}
        with reading(self.server.app.state.engine) as session:
            for table in Base.metadata.sorted_tables:
                if table.name not in _TABLES:
                    columns = [c for c in table.columns if c.name not in _COLUMNS]
                    rows[table.name] = sorted(map(repr, session.execute(select(*columns))))
        return rows


def told(answer: httpx.Response) -> Seen:
    """The code of a problem, with what it tells."""
    if answer.is_success:
        return Seen(None, answer.text)
    problem = answer.json()
    return Seen(problem["code"], problem["detail"])
