"""`weft history`: what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.options import SERVER, Cursor, Json, Key, Limit, ModelFilter, Server, connect
from server.cli.output import show_page

COLUMNS = ("id", "at", "kind", "model_id", "version_id", "device_id", "data")


def history(
    kind: Annotated[str | None, typer.Option("--kind", help="A kind, or its first part.")] = None,
    model: ModelFilter = None,
    device: Annotated[str | None, typer.Option("--device", help="Id of a device.")] = None,
    rollout: Annotated[int | None, typer.Option("--rollout", help="Id of a rollout.")] = None,
    refinement: Annotated[
        int | None, typer.Option("--refinement", help="Id of a refinement.")
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List what happened, newest first."""
    query = {
        "kind": kind,
        "model": model,
        "device_id": device,
        "rollout_id": rollout,
        "refinement_id": refinement,
        "order": "oldest" if oldest_first else "newest",
        "limit": limit,
        "cursor": cursor,
    }
    with connect(server, key) as client:
        show_page(client.get("/events", **query), as_json, COLUMNS)
