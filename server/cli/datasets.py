"""`weft datasets`: labelled images, known to the server by name."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from server.cli.listing import add_list
from server.cli.options import SERVER, Json, Key, Server, connect
from server.cli.output import show_record

app = typer.Typer(help="Datasets: labelled images at a URI.", no_args_is_help=True)
COLUMNS = ("id", "name", "uri", "rows", "classes", "fingerprint", "created_at")
BRIEF = ("id", "name", "rows", "uri", "created_at")


@app.command("add")
def add(
    name: str,
    uri: Annotated[
        str,
        typer.Argument(help="Folder of images by class, npz, or Parquet, as the server sees it."),
    ],
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Register a dataset; it must lie under one of the server's WEFT_DATASET_ROOTS."""
    with connect(server, key) as client:
        show_record(client.post("/datasets", {"name": name, "uri": uri}), as_json, COLUMNS)


add_list(app, "/datasets", BRIEF, "List the datasets.")


@app.command("show")
def show(name: str, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one dataset."""
    with connect(server, key) as client:
        show_record(client.get(f"/datasets/{quote(name, safe='')}"), as_json, COLUMNS)
