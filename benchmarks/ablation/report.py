"""Runs -> Markdown: bytes at equal loss, and a paragraph each."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.ablation.paragraphs import TOLD
from benchmarks.ablation.variants import AIM, CURVE, VARIANTS, Variant

Row = Mapping[str, Any]
Pair = tuple[int, int]

_OWN = ("sparse", *(f"sparse-{aim}" for aim in CURVE))


def page(rows: list[Row]) -> str:
    """The table and what is to be said of each row."""
    curves = _curves(rows)
    own = {name: [r for r in rows if r["variant"] == name] for name in VARIANTS}
    told = [variant for variant in VARIANTS.values() if own[variant.name]]
    hours = sum(row["seconds"] for row in rows) / 3600
    models = len({row["model"] for row in rows if not row["variant"].startswith("whole")})
    lines = [
        "# What pays in `sparse`, and what does not",
        "",
        "Made by `make bench-ablation`. What is trained are the last two convolutions of VGG-small "
        "and its linear layer (112,000 of 136,000 weights, and nine tenths of the symbols of a "
        "whole update), on what enters them, kept as bytes: a training takes seconds, so that "
        f"{models} initial models serve. CIFAR-10, deployed with 10,000 rows, updated "
        f"with 45,000, {rows[0]['recipe']['epochs']} epochs, one thread; judged on the other 5,000 "
        "training rows, decoded from whole packages. The test set is not opened. "
        f"{hours:.1f} hours by the clock, on a machine that did much else.",
        "",
        "`times` is what counts: the bytes of the file, everything included, over those that "
        "`sparse` itself takes for the same loss on the held-out rows, with the same model and "
        f"seed, on the line through aims of {', '.join(map(str, sorted((AIM, *CURVE))))} bytes. "
        "Below 1 is better; how far its own rows are from 1 is noise. It is a geometric mean; in "
        "brackets the smallest and the largest. `loss` and `lift` are changes of the held-out "
        "cross entropy and of accuracy in points. Rows named after all of VGG-small train that, "
        "cropped and mirrored, and are to be held against each other.",
        "",
        "| | file bytes | loss | lift | times | runs |",
        "|---|---|---|---|---|---|",
        *(_line(variant, own[variant.name], curves) for variant in told),
        "",
        *itertools.chain.from_iterable(
            (f"**{v.title}.** {TOLD[v.name]}", "") for v in told if v.name in TOLD
        ),
    ]
    return "\n".join(lines)


def _line(
    variant: Variant, rows: list[Row], curves: Mapping[Pair, list[tuple[float, float]]]
) -> str:
    size = statistics.mean(row["bytes"] for row in rows)
    loss = statistics.mean(_loss(row) for row in rows)
    lift = 100 * statistics.mean(row["after"] - row["before"] for row in rows)
    name = variant.title
    times = [t for row in rows if (t := _times(row, curves)) is not None]
    told = "" if variant.whole or not times else _spread(times)
    return f"| {name} | {size:,.0f} | {loss:+.4f} | {lift:+.2f} | {told} | {len(rows)} |"


def _spread(times: list[float]) -> str:
    mean = math.exp(statistics.mean(map(math.log, times)))
    return f"{mean:.2f}" + (f" [{min(times):.2f} to {max(times):.2f}]" if len(times) > 1 else "")


def _loss(row: Row) -> float:
    return float(row["loss_after"] - row["loss_before"])


def _curves(rows: list[Row]) -> dict[Pair, list[tuple[float, float]]]:
    """Of each model and seed: loss and logarithm of bytes, of `sparse` itself."""
    found: dict[Pair, list[tuple[float, float]]] = {}
    for row in rows:
        if row["variant"] in _OWN:
            pair = row["model"], row["seed"]
            found.setdefault(pair, []).append((math.log(row["bytes"]), _loss(row)))
    return {pair: sorted(points) for pair, points in found.items() if len(points) > 1}


def _times(row: Row, curves: Mapping[Pair, list[tuple[float, float]]]) -> float | None:
    """The row's bytes over those of the curve at its loss; the ends of the curve go on straight.

    The curve is the straight line nearest to its points: a single point is as noisy as the row.
    """
    points = curves.get((row["model"], row["seed"]))
    if points is None:
        return None
    x, y = (statistics.mean(axis) for axis in zip(*points, strict=True))
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    if slope >= 0:
        return None
    return float(row["bytes"]) / math.exp(x + (_loss(row) - y) / slope)
