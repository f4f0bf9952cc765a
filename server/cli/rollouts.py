"""`weft rollouts`: bring devices to a version."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.options import SERVER, Cursor, Json, Key, Limit, ModelFilter, Server, connect
from server.cli.output import show_page, show_record

app = typer.Typer(help="Rollouts: bring devices to a version.", no_args_is_help=True)
COLUMNS = ("id", "model", "version", "state", "assignments", "created_at", "finished_at")
ASSIGNMENT = ("device", "state", "held", "result", "error", "offered_at", "finished_at")

Id = Annotated[int, typer.Argument(min=1, metavar="ID", help="Id of the rollout.")]


@app.command("start")
def start(
    model: str,
    version: Annotated[int, typer.Argument(min=1, help="Number of the version.")],
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Bring every device of the model to a version."""
    with connect(server, key) as client:
        body = {"model": model, "version": version}
        show_record(client.post("/rollouts", body), as_json, COLUMNS)


@app.command("list")
def list_rollouts(
    model: ModelFilter = None,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List rollouts, newest first."""
    with connect(server, key) as client:
        query = {"model": model, "state": state, "limit": limit, "cursor": cursor}
        show_page(client.get("/rollouts", **query), as_json, COLUMNS)


@app.command("show")
def show(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one rollout, with its devices counted by state."""
    with connect(server, key) as client:
        show_record(client.get(f"/rollouts/{id_}"), as_json, COLUMNS)


@app.command("devices")
def assignments(
    id_: Id,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List what has become of each device in a rollout."""
    with connect(server, key) as client:
        page = client.get(f"/rollouts/{id_}/assignments", limit=limit, cursor=cursor)
        show_page(page, as_json, ASSIGNMENT)


@app.command("abort")
def abort(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Take back what has not ended; devices that have committed keep the new weights."""
    with connect(server, key) as client:
        show_record(client.post(f"/rollouts/{id_}/abort"), as_json, COLUMNS)
