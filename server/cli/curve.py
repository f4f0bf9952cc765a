"""The size-accuracy curve of `auto` on a terminal: a table, and a plot made of letters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.options import SERVER, Json, Key, Server, connect
from server.cli.output import say, show_json, show_table, transfer
from server.publish.budget.curve import Curve, Point
from server.publish.budget.plot import accuracy_axis, byte_ticks, bytes_axis, label, percent_ticks

COLUMNS = ("trial", "trained", "bytes", "before", "after", "epochs", "chosen")
_WIDTH, _HEIGHT, _MARGIN = 64, 12, 8

Id = Annotated[int, typer.Argument(min=1, metavar="ID", help="Id of the refinement.")]


def curve(
    id_: Id,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the plot to this SVG file.")
    ] = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Show what a refinement by `auto` has measured: accuracy against bytes."""
    with connect(server, key) as client:
        path = f"/refinements/{id_}/curve"
        found = client.get(path)
        if plot is not None:
            client.download(f"{path}.svg", plot, lambda total: transfer("plot", total))
            say(f"written: {plot}")
    if as_json:
        show_json(found)
    else:
        show_curve(found)


def show_curve(found: dict[str, Any]) -> None:
    """The points by size, and where they lie; `*` is the chosen one."""
    curve = Curve.model_validate(found)
    rows = [_row(point) for point in sorted(curve.points, key=lambda p: p.bytes)]
    show_table(rows, COLUMNS)
    if len(curve.points) > 1:
        print("\n".join(["", *text_plot(curve)]))
    cost = f"{curve.epochs} epochs trained, {curve.refinements:g} refinements"
    print(f"\n{cost}, {curve.seconds:g} s; accuracies of {curve.images or 0} images")
    if curve.failure is not None:
        print(f"nothing published: {curve.failure.message}")


def _row(point: Point) -> dict[str, Any]:
    return {
        "trial": point.trial,
        "trained": label(point),
        "bytes": point.bytes,
        "before": f"{point.accuracy_before:.2%}",
        "after": f"{point.accuracy_after:.2%}",
        "epochs": point.epochs,
        "chosen": "*" if point.chosen else "",
    }


def text_plot(curve: Curve) -> Iterator[str]:
    """Lines of text: percent upwards, bytes to the right on a logarithmic axis."""
    x, y = bytes_axis(curve, 0, _WIDTH - 1), accuracy_axis(curve, _HEIGHT - 1, 0)
    rows = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    if curve.goal.max_bytes is not None:
        for row in rows:
            row[round(x.place(math.log10(curve.goal.max_bytes)))] = ":"
    if curve.goal.min_accuracy is not None:
        line = rows[round(y.place(curve.goal.min_accuracy))]
        line[:] = ["-" if mark == " " else mark for mark in line]
    for point in sorted(curve.points, key=lambda p: p.chosen):
        row = rows[round(y.place(100 * point.accuracy_after))]
        row[round(x.place(math.log10(point.bytes)))] = "*" if point.chosen else "o"
    named = {round(y.place(percent)): f"{percent:g}%" for percent in percent_ticks(y)}
    for number, row in enumerate(rows):
        yield f"{named.get(number, ''):>{_MARGIN - 2}} |{''.join(row)}".rstrip()
    yield " " * (_MARGIN - 1) + "+" + "-" * _WIDTH
    yield _sizes(curve).rstrip() + " bytes"


def _sizes(curve: Curve) -> str:
    """The ticks below; one that would run into another is left out."""
    x, line = bytes_axis(curve, 0, _WIDTH - 1), ""
    for size in byte_ticks(x):
        word = f"{size:,}"
        at = _MARGIN + round(x.place(math.log10(size))) - len(word) // 2
        if at > len(line):
            line = line.ljust(at) + word
    return line
