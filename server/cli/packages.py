"""`weft packages`: the update packages of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.options import (
    SERVER,
    Bits,
    Cursor,
    Golden,
    GoldenShape,
    Json,
    Key,
    Limit,
    Method,
    ModelFilter,
    More,
    Proportion,
    Rank,
    Seed,
    Server,
    connect,
    method_options,
    parse_shape,
)
from server.cli.output import Record, show_page, show_record, transfer

app = typer.Typer(help="Update packages of a server.", no_args_is_help=True)
BRIEF = ("id", "model", "base", "target", "method", "size_bytes", "learnable_count", "created_at")
COLUMNS = (*BRIEF[:5], "options", "sha256", "size_bytes", "learnable_count", "state", "created_at")

#: Figures of a lossy package that was measured, from its metrics.
FIGURES = ("dataset", "images", "accuracy_target", "accuracy_after")

Id = Annotated[int, typer.Argument(min=1, metavar="ID", help="Id of the package.")]


@app.command("build")
def build(
    model: str,
    target: Annotated[int, typer.Option("--target", min=1, help="Number of the version.")],
    method: Method,
    base: Annotated[
        int | None, typer.Option("--base", min=1, help="Number; not for `full`.")
    ] = None,
    rank: Rank = None,
    bits: Bits = None,
    proportion: Proportion = None,
    seed: Seed = None,
    option: More = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Measure a lossy result on this dataset.")
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            "--max-accuracy-drop",
            min=0,
            max=100,
            help="Percentage points that it may lie below the target; else nothing is published.",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option("--min-accuracy", min=0, max=100, help="Percent that it must reach."),
    ] = None,
    golden: Golden = None,
    golden_shape: GoldenShape = None,
    golden_dataset: Annotated[
        str | None,
        typer.Option("--golden-dataset", help="Take the first rows of this dataset for them."),
    ] = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Fit a method to two versions, without training; a lossy one makes a new version."""
    options = method_options(method, rank, bits, proportion, seed, option)
    chosen = {"id": method, "options": options}
    asked: dict[str, Any] = {
        "dataset": dataset,
        "max_accuracy_drop": max_accuracy_drop,
        "min_accuracy": min_accuracy,
    }
    if golden is not None:
        shape = parse_shape(golden_shape)
        asked["golden"] = {"count": golden, "shape": shape, "dataset": golden_dataset}
    body = {"model": model, "base": base, "target": target, "method": chosen, **asked}
    with connect(server, key) as client:
        _show(client.post("/packages", body), as_json)


@app.command("list")
def list_packages(
    model: ModelFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List packages, newest first."""
    with connect(server, key) as client:
        page = client.get("/packages", model=model, limit=limit, cursor=cursor)
        show_page(page, as_json, BRIEF)


@app.command("show")
def show(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one package; with --json also how each tensor is sent."""
    with connect(server, key) as client:
        _show(client.get(f"/packages/{id_}"), as_json)


@app.command("download")
def download(
    id_: Id,
    output: Annotated[Path, typer.Option("--output", help="Where to put the package.")],
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Download the file that devices get."""
    with connect(server, key) as client:
        size = client.download(
            f"/packages/{id_}/content",
            output,
            lambda total: transfer(f"downloading {output.name}", total),
        )
    show_record({"path": str(output), "size_bytes": size}, as_json)


def _show(package: Record, as_json: bool) -> None:
    """One package; for people with the figures that were measured, if any were."""
    if as_json:
        show_record(package, as_json)
        return
    metrics = package["metrics"]
    measured = tuple(name for name in FIGURES if name in metrics)
    show_record({**metrics, **package}, as_json, (*COLUMNS, *measured))
