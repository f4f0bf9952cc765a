"""`weft history`: what happened, so far or as it happens, on the screen or into a file."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlencode

import typer

from server.cli.client import Client, Failed
from server.cli.devices import find_device
from server.cli.options import SERVER, Cursor, Json, Key, Limit, ModelFilter, Server, connect
from server.cli.output import say, show_json, show_line, show_page, show_record, transfer
from shared.errors import Unreachable

app = typer.Typer(help="What happened.", invoke_without_command=True)

COLUMNS = ("id", "at", "kind", "actor", "about")
LINE = ("at", "kind", "actor", "about")

#: Seconds until a follower that lost the server asks again.
AGAIN_SECONDS = 2.0

Kind = Annotated[str | None, typer.Option("--kind", help="A kind, or its first part.")]
Device = Annotated[str | None, typer.Option("--device", help="Id or name of a device.")]
Rollout = Annotated[int | None, typer.Option("--rollout", help="Id of a rollout.")]
Refinement = Annotated[int | None, typer.Option("--refinement", help="Id of a refinement.")]
Filter = Annotated[
    str | None, typer.Option("--filter", help="Which events, as RSQL: 'data.result!=committed'.")
]
Since = Annotated[
    str | None, typer.Option("--since", help="From this moment on: 2026-03-01T10:00:00Z.")
]
Until = Annotated[str | None, typer.Option("--until", help="Up to this moment.")]


class Format(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    CSV = "csv"


@app.callback()
def history(
    context: typer.Context,
    kind: Kind = None,
    model: ModelFilter = None,
    device: Device = None,
    rollout: Rollout = None,
    refinement: Refinement = None,
    wanted: Filter = None,
    since: Since = None,
    until: Until = None,
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="Begin with what happened first.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print what happens from now on, until Ctrl-C.")
    ] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List what happened, newest first; with --follow what happens, as it happens.

    A follower outlives the server: it goes on behind the last event that it has printed.
    """
    if context.invoked_subcommand is not None:
        return
    with connect(server, key) as client:
        query = _query(client, kind, model, device, rollout, refinement, wanted, since, until)
        if follow:
            # An exception out of a signal may leave a lock of the HTTP library taken, on which the
            # client's end would wait for ever. Each line is flushed, so there is nothing to lose.
            signal.signal(signal.SIGINT, lambda *_: os._exit(0))
            _follow(client, query, cursor, as_json)
        order = "oldest" if oldest_first else "newest"
        page = client.get("/events", **query, order=order, limit=limit, cursor=cursor)
    if as_json:
        show_json(page)
    else:
        show_page({**page, "items": [_told(event) for event in page["items"]]}, False, COLUMNS)


@app.command("export")
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    format_: Annotated[Format, typer.Option("--format", help="JSON Lines or CSV.")] = Format.JSONL,
    kind: Kind = None,
    model: ModelFilter = None,
    device: Device = None,
    rollout: Rollout = None,
    refinement: Refinement = None,
    wanted: Filter = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Write all events that match into a file, oldest first."""
    with connect(server, key) as client:
        query = _query(client, kind, model, device, rollout, refinement, wanted, since, until)
        given = {name: value for name, value in query.items() if value is not None}
        path = f"/events/export?{urlencode(given | {'format': format_.value})}"
        size = client.download(path, output, lambda total: transfer("history", total))
    show_record({"path": str(output), "size_bytes": size}, as_json)


def _query(
    client: Client,
    kind: str | None,
    model: str | None,
    device: str | None,
    rollout: int | None,
    refinement: int | None,
    wanted: str | None,
    since: str | None,
    until: str | None,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "model": model,
        "device_id": find_device(client, device)["id"] if device else None,
        "rollout_id": rollout,
        "refinement_id": refinement,
        "filter": wanted,
        "since": since,
        "until": until,
    }


def _follow(
    client: Client, query: Mapping[str, Any], cursor: str | None, as_json: bool
) -> NoReturn:
    """Print events until Ctrl-C. A server that cannot be reached at all is an error."""
    last = cursor
    while True:
        try:
            for seen, event in client.listen("/events/follow", **query, cursor=last):
                last = seen
                if event is not None:
                    show_line(event if as_json else _told(event), as_json, LINE)
        except (Unreachable, Failed) as error:
            if last is None:
                raise
            say(f"{error.message}; asking again")
        time.sleep(AGAIN_SECONDS)


def _told(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event in a few columns: which things it is about, and its data, in one.

    Models and versions go by name and number, as in all commands. Phases are counted from 1.
    """
    ids = {
        name.removesuffix("_id"): value
        for name, value in event.items()
        if name.endswith("_id") and name not in ("model_id", "version_id")
    }
    known = {"model": event["model"], "version": event["version"], **ids}
    things = {name: value for name, value in known.items() if value is not None}
    data = dict(event["data"])
    if isinstance(data.get("phase"), int):
        data["phase"] += 1
    return {**event, "about": {**things, **data}}
