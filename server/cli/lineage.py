"""`weft lineage`: where weights come from, what was made of them, and which devices ran them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from server.cli.options import SERVER, Cursor, Json, Key, Limit, ModelFilter, Server, connect
from server.cli.output import show_json, show_page, show_table

app = typer.Typer(help="Where weights come from, and where they ran.", no_args_is_help=True)

LINK = ("relation", "number", "source", "parent", "approximates", "datasets", "packages", "removed")
RUN = ("device", "device_id", "model", "version", "since", "until")


@app.command("version")
def version(
    model: str,
    number: Annotated[int, typer.Argument(min=1, help="Number of the version.")],
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Show all that a version comes from, and all that has been made of it."""
    with connect(server, key) as client:
        found = client.get(f"/models/{quote(model, safe='')}/versions/{number}/lineage")
    if as_json:
        show_json(found)
        return
    rows = [_row("descendant", link) for link in reversed(found["descendants"])]
    rows += [_row("this", found["version"])]
    rows += [_row("ancestor", link) for link in found["ancestors"]]
    show_table(rows, LINK)


@app.command("devices")
def devices(
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Weights that learnt from this dataset.")
    ] = None,
    model: ModelFilter = None,
    number: Annotated[
        int | None,
        typer.Option("--version", min=1, help="With --model: it, and what was made of it."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="In use after 2026-03-01T10:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="In use before this moment.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List which devices ran weights derived from a dataset or a version, and when."""
    query = {"dataset": dataset, "model": model, "version": number, "since": since, "until": until}
    with connect(server, key) as client:
        page = client.get("/lineage", **query, limit=limit, cursor=cursor)
    show_page(page, as_json, RUN)


def _row(relation: str, link: Mapping[str, Any]) -> dict[str, Any]:
    datasets = ", ".join(made["dataset"] for made in link["refinements"])
    packages = ", ".join(
        f"{sent['method']} from {sent['base']}" if sent["base"] else sent["method"]
        for sent in link["packages"]
    )
    told = {"datasets": datasets or None, "packages": packages or None}
    return {**link, **told, "relation": relation, "removed": link["removed_at"]}
