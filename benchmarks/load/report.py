"""The page and the plot, made from the records of a run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks.load.databases import KINDS
from benchmarks.load.verdicts import verdicts
from server.tables import Json

MIB = 1 << 20
Runs = dict[str, dict[str, list[Json]]]
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

HOW = """
One server process, started as `weft serve` starts it, with default settings except that the limits
of requests by address are off; one process that plays all devices, over keep-alive connections to
127.0.0.1. Each figure is the median of {runs} runs (least to most). Runs of what is compared
alternate. PostgreSQL is a private one on the same machine; both databases write to the disk at each
commit. There are {devices:,} enrolled devices, and each polls in its turn, so no poll profits from
an earlier one.
"""


def page(folder: Path) -> str:
    """Markdown from the records in `folder`: of the databases of which there are all."""
    kinds = [kind for kind in KINDS if (folder / f"{kind}-rollout-0.json").exists()]
    machine = json.loads((folder / "machine.json").read_text())
    fleets = {kind: json.loads((folder / f"{kind}-fleet.json").read_text()) for kind in kinds}
    runs = {kind: _runs(folder, kind) for kind in kinds}
    some = runs[kinds[0]]
    parts = [
        "# Polls and large rollouts",
        HOW.format(runs=len(some["polls"]), devices=fleets[kinds[0]]["devices"]).strip(),
        _machine(machine),
        _polls(runs),
        _beside(runs),
        _rollouts(runs, fleets),
        _targets(runs),
    ]
    return "\n\n".join(parts) + "\n"


def _runs(folder: Path, kind: str) -> dict[str, list[Json]]:
    return {
        part: [json.loads(path.read_text()) for path in sorted(folder.glob(f"{kind}-{part}-*"))]
        for part in ("polls", "refining", "rollout")
    }


def _machine(machine: Json) -> str:
    versions = ", ".join(
        f"{name} {value}"
        for name, value in machine.items()
        if name not in ("command", "measured_at", "processor", "cores", "memory", "kernel")
    )
    return (
        f"Made by `{machine['command']}` at {machine['measured_at']} on {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory']}, Linux {machine['kernel']}; {versions}."
    )


def _targets(runs: Runs) -> str:
    lines = [line for kind, found in runs.items() for line in verdicts(NAMES[kind], found)]
    return "\n".join(["## Targets", "", *lines])


def _polls(runs: Runs) -> str:
    lines = [
        "## An idle poll beside an empty route",
        "",
        "As fast as one server process can, with 32 connections that each ask again when answered. "
        "The empty route is an `async def` of the same app that does nothing.",
        "",
        "| database | route | answers a second | p50 ms | p99 ms | server CPU s per 1,000 "
        "| poll / empty |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, found in runs.items():
        ratio = [r["poll"]["per_second"] / r["empty"]["per_second"] for r in found["polls"]]
        for route in ("empty", "poll"):
            seen = [run[route] for run in found["polls"]]
            lines.append(
                f"| {NAMES[kind]} | {route} | {_spread(seen, 'per_second', '{:,.0f}')} "
                f"| {_ms(seen, 'p50')} | {_ms(seen, 'p99')} "
                f"| {_spread(seen, 'cpu_per_1000', '{:.3f}')} "
                f"| {_values(ratio, '{:.2f}') if route == 'poll' else ''} |"
            )
    return "\n".join(lines)


def _beside(runs: Runs) -> str:
    lines = [
        "## Idle polls beside other work",
        "",
        "At 30% of the rate above (open loop: latencies count from when a poll was due). "
        "*Refinement*: one that trains all the while, one thread, nice 10. *Rollout*: one over the "
        "whole fleet is being created; the devices that poll are of another model.",
        "",
        "| database | beside | polls a second | p50 ms calm | p50 ms beside | p99 ms calm "
        "| p99 ms beside | p99 beside / calm |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, found in runs.items():
        for part, name in (("refining", "refining"), ("rollout", "creating")):
            calm = [run["calm"] for run in found[part]]
            beside = [run[name] for run in found[part]]
            ratio = [b["p99"] / c["p99"] for b, c in zip(beside, calm, strict=True)]
            what = "refinement" if part == "refining" else "rollout"
            lines.append(
                f"| {NAMES[kind]} | {what} | {_spread(beside, 'per_second', '{:,.0f}')} "
                f"| {_ms(calm, 'p50')} | {_ms(beside, 'p50')} | {_ms(calm, 'p99')} "
                f"| {_ms(beside, 'p99')} | {_values(ratio, '{:.2f}')} |"
            )
    return "\n".join(lines)


def _rollouts(runs: Runs, fleets: dict[str, Json]) -> str:
    lines = [
        "## A rollout over 100,000 devices",
        "",
        "Without phases or a cap, so that all are admitted at once, while polls come in as above. "
        "Seconds from the request until the last device is admitted.",
        "",
        "| database | s until the answer | s until all are admitted | server CPU s "
        "| bytes a device | bytes an assignment | MiB at the start | MiB at the peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, found in runs.items():
        made = found["rollout"]
        lines.append(
            f"| {NAMES[kind]} | {_spread(made, 'answer_seconds', '{:.2f}')} "
            f"| {_spread(made, 'seconds', '{:.1f}')} | {_spread(made, 'cpu_seconds', '{:.1f}')} "
            f"| {fleets[kind]['bytes_a_device']:,.0f} "
            f"| {_spread(made, 'bytes_an_assignment', '{:,.0f}')} "
            f"| {_mib(made, 'idle_bytes')} | {_mib(made, 'peak_bytes')} |"
        )
    return "\n".join(lines)


def _spread(records: list[Json], key: str, form: str) -> str:
    return _values([record[key] for record in records], form)


def _ms(records: list[Json], key: str) -> str:
    return _values([record[key] * 1000 for record in records], "{:.2f}")


def _mib(records: list[Json], key: str) -> str:
    return _values([record[key] / MIB for record in records], "{:.0f}")


def _values(values: list[float], form: str) -> str:
    ends = f"({form.format(min(values))} to {form.format(max(values))})"
    return f"{form.format(statistics.median(values))} {ends}"


def plot(folder: Path, path: Path) -> None:
    """p99 of idle polls, calm and beside other work, for each run."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(KINDS), figsize=(9, 3.2), sharey=True)
    for axis, kind in zip(axes, KINDS, strict=True):
        found = _runs(folder, kind)
        columns: list[tuple[str, Callable[[Json], float], str]] = [
            ("calm", lambda run: run["calm"]["p99"], "refining"),
            ("refinement", lambda run: run["refining"]["p99"], "refining"),
            ("calm ", lambda run: run["calm"]["p99"], "rollout"),
            ("rollout", lambda run: run["creating"]["p99"], "rollout"),
        ]
        for place, (_, p99, part) in enumerate(columns):
            axis.plot([place] * len(found[part]), [p99(r) * 1000 for r in found[part]], "o")
        axis.set_xticks(range(len(columns)), [name for name, _, _ in columns])
        axis.set_title(NAMES[kind])
        axis.set_yscale("log")
    axes[0].set_ylabel("p99 of idle polls, ms (log)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
