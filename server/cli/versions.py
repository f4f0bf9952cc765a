"""`weft versions`: the weights of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from server.cli.options import SERVER, Cursor, Json, Key, Limit, Server, connect, parse_pairs
from server.cli.output import show_page, show_record, transfer

app = typer.Typer(help="Versions: immutable weights of a model.", no_args_is_help=True)
COLUMNS = (
    "number",
    "source",
    "parent",
    "approximates",
    "arguments",
    "size_bytes",
    "weights_digest",
    "metrics",
    "created_at",
)
BRIEF = ("number", "source", "parent", "approximates", "size_bytes", "weights_digest", "created_at")

Number = Annotated[int, typer.Argument(min=1, help="Number of the version.")]


def _path(model: str, rest: str = "") -> str:
    return f"/models/{quote(model, safe='')}/versions{rest}"


@app.command("upload")
def upload(
    model: str,
    file: Annotated[Path, typer.Argument(help="A safetensors file.")],
    new_schema: Annotated[
        bool, typer.Option("--new-schema", help="Accept other tensors than the model has.")
    ] = False,
    argument: Annotated[
        list[str] | None,
        typer.Option(
            "--argument",
            help="name=value of the architecture where these weights differ from the model's "
            "newest version; may be given repeatedly.",
        ),
    ] = None,
    parent: Annotated[
        int | None,
        typer.Option(
            "--parent",
            help="Number of the version it was made from; a lossless package from that is made "
            "in the background.",
        ),
    ] = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Upload weights as the model's next version."""
    total = file.stat().st_size if file.is_file() else None
    with connect(server, key) as client, transfer(f"uploading {file.name}", total) as advance:
        version = client.upload(
            _path(model),
            file,
            advance,
            new_schema=new_schema or None,
            arguments=json.dumps(parse_pairs("--argument", argument)) if argument else None,
            parent=parent,
        )
    show_record(version, as_json, COLUMNS)


@app.command("list")
def list_versions(
    model: str,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List a model's versions, newest first."""
    with connect(server, key) as client:
        show_page(client.get(_path(model), limit=limit, cursor=cursor), as_json, BRIEF)


@app.command("show")
def show(
    model: str, number: Number, as_json: Json = False, server: Server = SERVER, key: Key = None
) -> None:
    """Show one version, with how it was measured."""
    with connect(server, key) as client:
        show_record(client.get(_path(model, f"/{number}")), as_json, COLUMNS)


@app.command("download")
def download(
    model: str,
    number: Number,
    output: Annotated[Path, typer.Option("--output", help="Where to put the weights.")],
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Download a version's weights as a safetensors file."""
    with connect(server, key) as client:
        size = client.download(
            _path(model, f"/{number}/weights"),
            output,
            lambda total: transfer(f"downloading {output.name}", total),
        )
    show_record({"path": str(output), "size_bytes": size}, as_json)
