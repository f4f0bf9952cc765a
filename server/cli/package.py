"""`weft package`: update packages as files, without a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.options import Bits, Json, Method, Proportion, Rank, Seed, method_options
from server.cli.output import show_record
from shared import methods
from shared.errors import BadConfig
from shared.package import PackageReader

app = typer.Typer(help="Update packages as files, without a server.", no_args_is_help=True)


@app.command("build")
def build(
    target: Annotated[Path, typer.Option("--target", help="The new weights.")],
    method: Method,
    output: Annotated[Path, typer.Option("--output", help="Where to put the package.")],
    base: Annotated[
        Path | None, typer.Option("--base", help="The weights that devices hold; not for `full`.")
    ] = None,
    rank: Rank = None,
    bits: Bits = None,
    proportion: Proportion = None,
    seed: Seed = None,
    model: Annotated[str, typer.Option("--model", help="Name to write into the package.")] = "",
    as_json: Json = False,
) -> None:
    """Fit a method to two weights files, without training, and write the package."""
    from server.packaging.encode import build_package

    options = method_options(method, rank, bits, proportion, seed)
    if base is None and methods.get(method).needs_base:
        raise BadConfig("missing", f"--base: {method} starts from the weights that devices hold")
    report = asdict(build_package(base, target, method, options, output, model))
    report |= {"path": str(output), "method": method}
    names = [name for name in report if name != "tensors"]
    show_record(report, as_json, names)


@app.command("show")
def show(path: Path, as_json: Json = False) -> None:
    """Say what a package is: method, digests, size."""
    with PackageReader(path) as package:
        show_record(_describe(package), as_json)


def _describe(package: PackageReader) -> dict[str, Any]:
    header = package.header
    return {
        "model": header.model,
        "method": header.method,
        "options": header.options,
        "coder": header.coder,
        "format": header.format,
        "tool": header.tool,
        "base_digest": package.base_digest.hex() if package.base_digest else None,
        "result_digest": package.result_digest.hex(),
        "size_bytes": package.size,
        "container_bytes": package.container_bytes,
    }
