"""The command `list` of those nouns that are listed without conditions."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from server.cli.options import SERVER, Cursor, Json, Key, Limit, Server, connect
from server.cli.output import show_page


def add_list(app: typer.Typer, path: str, columns: Sequence[str], about: str) -> None:
    """Add the command; `path` below the API's root gives the pages, `about` is its help."""

    @app.command("list", help=about)
    def list_pages(
        limit: Limit = 50,
        cursor: Cursor = None,
        as_json: Json = False,
        server: Server = SERVER,
        key: Key = None,
    ) -> None:
        with connect(server, key) as client:
            show_page(client.get(path, limit=limit, cursor=cursor), as_json, columns)
