"""`weft history`: what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from server.cli.options import SERVER, Cursor, Json, Key, Limit, ModelFilter, Server, connect
from server.cli.output import show_json, show_page

COLUMNS = ("id", "at", "kind", "about")


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
        page = client.get("/events", **query)
    if as_json:
        show_json(page)
    else:
        show_page({**page, "items": [_told(event) for event in page["items"]]}, False, COLUMNS)


def _told(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event in four columns: which things it is about, and its data, in one."""
    things = {
        name.removesuffix("_id"): value
        for name, value in event.items()
        if name.endswith("_id") and value is not None
    }
    return {**event, "about": {**things, **event["data"]}}
