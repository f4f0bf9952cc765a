"""`weft models`: named architectures."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from server.cli.listing import add_list
from server.cli.options import SERVER, Json, Key, Server, connect, parse_pairs
from server.cli.output import show_record

app = typer.Typer(help="Models: named architectures.", no_args_is_help=True)
COLUMNS = ("id", "name", "architecture", "arguments", "schema_digest", "created_at")

Arguments = Annotated[
    list[str] | None,
    typer.Option("--argument", help="name=value of the architecture; may be given repeatedly."),
]


@app.command("create")
def create(
    name: str,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="Of the zoo, or `module:factory`.")
    ] = None,
    argument: Arguments = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Create a model."""
    body = {
        "name": name,
        "architecture": architecture,
        "arguments": parse_pairs("--argument", argument),
    }
    with connect(server, key) as client:
        show_record(client.post("/models", body), as_json, COLUMNS)


add_list(app, "/models", COLUMNS, "List the models.")


@app.command("show")
def show(name: str, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one model; with --json also its schema."""
    with connect(server, key) as client:
        show_record(client.get(f"/models/{quote(name, safe='')}"), as_json, COLUMNS)
