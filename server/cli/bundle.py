"""`weft bundle`: updates for devices that no network reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import SERVER, Json, Key, Server, connect
from server.cli.output import show_record, transfer
from shared.bundle import VALID_DAYS, BundleReader
from shared.metadata import unpack
from shared.wire import MAX_CHAIN

app = typer.Typer(help="Updates to be carried to a device.", no_args_is_help=True)


@app.command("export")
def export(
    model: str,
    version: Annotated[int, typer.Argument(min=1, help="Number of the version to lead to.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to put the bundle.")],
    bases: Annotated[
        list[int] | None,
        typer.Option(
            "--from",
            min=1,
            help="Number of a version that devices may hold; may be given repeatedly.",
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="For devices that hold none of these too; so without --from."),
    ] = False,
    chain: Annotated[
        int,
        typer.Option(
            "--chain",
            min=1,
            max=MAX_CHAIN,
            help="Most packages of one way; 1 for devices that change weights in place.",
        ),
    ] = MAX_CHAIN,
    valid_days: Annotated[
        int,
        typer.Option(
            "--valid-days", min=1, max=3650, help="Days for which devices accept the bundle."
        ),
    ] = VALID_DAYS,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Make a file for `edge-agent apply-bundle`; packages that it lacks are built."""
    body = {
        "model": model,
        "version": version,
        "bases": bases or [],
        "full": full,
        "chain": chain,
        "valid_days": valid_days,
    }
    with connect(server, key) as client:
        size = client.download(
            "/bundles",
            output,
            lambda total: transfer(f"downloading {output.name}", total),
            body,
        )
    found = {"path": str(output), "size_bytes": size}
    if not output.is_file():  # it went through a pipe
        show_record(found, as_json)
        return
    with output.open("rb") as file:
        reader = BundleReader(file, output.name)
        bundle, until = reader.bundle, _valid_until(reader)
    ways = [
        {
            "from": way.base_version,
            "methods": [offer.method for offer in way.packages],
            "size_bytes": way.size,
        }
        for way in bundle.ways
    ]
    told = {**found, "version": bundle.version, "weights_digest": bundle.weights_digest}
    show_record({**told, "valid_until": until, "ways": ways}, as_json)


def _valid_until(reader: BundleReader) -> str:
    """When the first of its metadata expires; of roots only the newest counts."""
    newest = {file.role: json.loads(file.content)["signed"] for file in unpack(reader.metadata())}
    return min(str(signed["expires"]) for signed in newest.values())
