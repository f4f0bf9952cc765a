"""`weft devices`: what the devices hold."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from server.cli.options import SERVER, Cursor, Json, Key, Limit, Server, connect
from server.cli.output import show_page, show_record

app = typer.Typer(help="Devices: what they hold and when they were seen.", no_args_is_help=True)
BRIEF = ("id", "name", "last_seen_at", "created_at")


@app.command("list")
def list_devices(
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List the devices."""
    with connect(server, key) as client:
        show_page(client.get("/devices", limit=limit, cursor=cursor), as_json, BRIEF)


@app.command("show")
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the device.")],
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Show one device, with the weights of each of its models."""
    with connect(server, key) as client:
        show_record(client.get(f"/devices/{quote(id_, safe='')}"), as_json)
