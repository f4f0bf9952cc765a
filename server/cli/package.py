"""`weft package`: update packages as files, without a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.models import Arguments
from server.cli.options import (
    Bits,
    Golden,
    GoldenShape,
    Json,
    Method,
    More,
    Proportion,
    Rank,
    Seed,
    method_options,
    parse_pairs,
    parse_shape,
)
from server.cli.output import show_record
from shared import methods
from shared.errors import BadConfig
from shared.golden import SAMPLES, load_samples, samples_digest
from shared.package import PackageReader
from shared.weights import write_weights

if TYPE_CHECKING:
    from server.packaging.expected import Expected

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
    option: More = None,
    model: Annotated[str, typer.Option("--model", help="Name to write into the package.")] = "",
    golden: Golden = None,
    golden_shape: GoldenShape = None,
    golden_samples: Annotated[
        Path | None,
        typer.Option("--golden-samples", help="A file of `package samples` to take them from."),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="Of the new weights; for --golden.")
    ] = None,
    argument: Arguments = None,
    as_json: Json = False,
) -> None:
    """Fit a method to two weights files, without training, and write the package."""
    from server.packaging.encode import build_package

    expected = None
    if golden is not None:
        shape = parse_shape(golden_shape)
        expected = _expected(
            golden, shape, golden_samples, architecture, parse_pairs("--argument", argument)
        )
    options = method_options(method, rank, bits, proportion, seed, option)
    if base is None and methods.get(method).needs_base:
        raise BadConfig("missing", f"--base: {method} starts from the weights that devices hold")
    built = build_package(base, target, method, options, output, model, golden=expected)
    report = asdict(built)
    report |= {"path": str(output), "method": method}
    names = [name for name in report if name != "tensors"]
    show_record(report, as_json, names)


def _expected(
    count: int,
    shape: list[int] | None,
    samples: Path | None,
    architecture: str | None,
    arguments: dict[str, Any],
) -> Expected:
    """What makes the golden samples. Raises BadConfig, BadModel, BadWeights."""
    from server import zoo
    from server.packaging.expected import Expected

    if architecture is None:
        raise BadConfig("missing", "--architecture: golden samples are labels of a network")
    if (shape is None) == (samples is None):
        raise BadConfig("missing", "give --golden-shape or --golden-samples")
    network = zoo.get(architecture)
    inputs = load_samples(samples) if samples else None
    return Expected(lambda: network.build(arguments), count, tuple(shape or ()), inputs)


@app.command("samples")
def samples(
    data: Annotated[str, typer.Option("--data", help="Where the data set is: path or address.")],
    count: Annotated[int, typer.Option("--count", min=1, max=64, help="How many of its rows.")],
    output: Annotated[Path, typer.Option("--output", help="File to write, safetensors.")],
    as_json: Json = False,
) -> None:
    """Write the first rows of a data set as golden samples, for devices to have."""
    import torch

    from server.packaging.replacing import replacing
    from server.publish.measuring import first_rows
    from server.refine.batches import Batches
    from server.registry.opening import open_dataset

    rows = first_rows(Batches.of(open_dataset(data), torch.device("cpu")), count)
    with replacing(output) as beside:
        write_weights(beside, {SAMPLES: ("F32", rows)})
    told = {"samples": samples_digest(rows), "count": len(rows), "shape": list(rows.shape[1:])}
    show_record(told | {"path": str(output)}, as_json, ["samples", "count", "shape", "path"])


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
        "golden": header.golden.fields() if header.golden else None,
        "base_digest": package.base_digest.hex() if package.base_digest else None,
        "result_digest": package.result_digest.hex(),
        "size_bytes": package.size,
        "container_bytes": package.container_bytes,
    }
