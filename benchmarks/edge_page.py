"""The figures of `make bench-edge` as Markdown: medians, with minimum and maximum of the rounds."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.agent import PYTHONS, spread

MIB = 1 << 20
#: What the issue allows.
IDLE_MIB, START_SECONDS, PEAK_TENSORS = 64, 1.0, 6


def page(result: dict[str, Any]) -> str:
    """All of it."""
    parts = [
        ["# What the agent costs a device", ""],
        _made(result),
        _agent(result),
        _updates(result),
        _methods(result),
        _in_place(result),
    ]
    return "\n".join(line for part in parts for line in part)


def _made(result: dict[str, Any]) -> list[str]:
    rounds = len(result["costs"]["start"])
    return [
        f"Made by `{result['command']}` on {result['machine']['processor']} with "
        f"{result['machine']['cores']} cores and Python {result['machine']['python']}, "
        f"{rounds} rounds; median (minimum to maximum). The weights are ResNet18's, "
        f"{result['model_bytes']:,} bytes.",
        "",
    ]


def _agent(result: dict[str, Any]) -> list[str]:
    lines = [
        "## At rest",
        "",
        "The process of `edge-agent run`, enrolled, with one model. Start: until its first poll "
        "arrives at a server on loopback; beside it, in the same round, Python that does nothing "
        "(`-c pass`), and Python that imports the agent's libraries (httpcore, pydantic). RSS, "
        "alone: what the process would take if it did all by itself, without children.",
        "",
        "| Python | RSS MiB | PSS MiB | RSS, alone | start s | / Python | / libraries "
        "| processor ms a poll | ... between polls, ms a minute |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    measured = [v for v in ("", *PYTHONS) if f"start {v}".strip() in result["agent"]]
    return [
        *lines,
        *(_row_at_rest(result, version) for version in measured),
        "",
        f"Limits: {IDLE_MIB} MiB RSS, {START_SECONDS:g} s.",
        "",
    ]


def _row_at_rest(result: dict[str, Any], version: str) -> str:
    starts = result["agent"][f"start {version}".strip()]
    rests = result["agent"][f"idle {version}".strip()]
    first = [start["first_poll"] for start in starts]
    cells = [
        version or result["machine"]["python"].rpartition(".")[0],
        spread([rest["rss"] for rest in rests], MIB, 1),
        spread([rest["pss"] for rest in rests], MIB, 1),
        spread([start["alone_bytes"] for start in starts], MIB, 1),
        spread(first),
        spread(
            [seconds / start["python"] for seconds, start in zip(first, starts, strict=True)], 1, 1
        ),
        spread(
            [seconds / start["libraries"] for seconds, start in zip(first, starts, strict=True)]
        ),
        spread([rest["poll_seconds"] for rest in rests], 1e-3),
        spread([rest["waiting"] * 60 for rest in rests], 1e-3, 1),
    ]
    return f"| {' | '.join(cells)} |"


def _updates(result: dict[str, Any]) -> list[str]:
    tensor = result["largest_tensor_float64_bytes"]
    lines = [
        "## A whole update",
        "",
        "The same process brings ResNet18 to another version, server and all on loopback. Its "
        "children do what needs numpy, one at a time. Peaks are resident MiB by the kernel's own "
        "count; the last column is the peak of the agent plus the largest peak of a child, less "
        "what the agent takes at rest, in units of the largest tensor in float64 "
        f"({tensor / MIB:.0f} MiB).",
        "",
        "| method | seconds | agent MiB | child MiB | both, over rest, in tensors |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in result["agent"].items():
        if not name.startswith("update "):
            continue
        over = [(each["tree_bytes"] - each["idle_bytes"]) / tensor for each in rounds]
        cells = [
            f"`{name.split()[1]}`",
            spread([each["seconds"] for each in rounds]),
            spread([each["own_bytes"] for each in rounds], MIB, 1),
            spread([each["child_bytes"] for each in rounds], MIB, 1),
            spread(over),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"Limit: {PEAK_TENSORS} tensors over rest.", ""]


def _methods(result: dict[str, Any]) -> list[str]:
    costs = result["costs"]
    files = [
        a["seconds"] + b["seconds"] for a, b in zip(costs["cp"], costs["sha256sum"], strict=True)
    ]
    start = [c["seconds"] for c in costs["start"]]
    idle = statistics.median(c["peak_bytes"] for c in costs["start"])
    lines = [
        "## Reconstituting, on one core",
        "",
        f"`cp` + `sha256sum` of the weights file: {spread(files)} s. `edge-agent apply` on a "
        f"network of one small matrix: {spread(start)} s, {idle / MIB:.0f} MiB; the figures below "
        "come on top of that.",
        "",
        "| method | package bytes | decode s | decode / (cp + sha256sum) | peak MiB "
        "| read MiB | written MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, size in result["package_bytes"].items():
        rounds = costs[method]
        decode = [c["seconds"] - s for c, s in zip(rounds, start, strict=True)]
        ratio = [d / f for d, f in zip(decode, files, strict=True)]
        peak = statistics.median(c["peak_bytes"] for c in rounds) - idle
        read, written = (
            statistics.median(c[key] for c in rounds) / MIB
            for key in ("read_bytes", "written_bytes")
        )
        lines.append(
            f"| `{method}` | {size:,} | {spread(decode)} | {spread(ratio)} | {peak / MIB:.0f} "
            f"| {read:.0f} | {written:.0f} |"
        )
    limit = 3 * result["largest_tensor_float64_bytes"] / MIB
    return [
        *lines,
        "",
        "Budgets ([architecture](../architecture.md)): factorising methods (`ka`, `ml`, "
        f"`ml_delta`) at most 2.5 s and 3x the largest tensor in float64 ({limit:.0f} MiB) over "
        "idle; the others at most 0.5 s, 5x `cp` + `sha256sum`, and 64 MiB over idle.",
        "",
    ]


def _in_place(result: dict[str, Any]) -> list[str]:
    costs, weights = result["costs"], result["model_bytes"]
    lines = [
        "## In place, against two slots",
        "",
        "Whole processes. `ab` writes the other slot (`edge-agent apply`, as above); `inplace` "
        "writes the undo file, then turns the weights file, block by block; going back turns it "
        "once more, where `ab` turns a link. Space is what is needed beside the weights in use, "
        "as a share of them; `inplace` gives it back at the commit, `ab` keeps it.",
        "",
        "| method | `ab` s | undo file s | turn s | `inplace` / `ab`, time | written MiB, `ab` "
        "| ... `inplace` | peak MiB | space, `ab` | ... `inplace` |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, extra in result["undo_bytes"].items():
        two, undo, turn = (costs[name] for name in (method, f"{method} undo", f"{method} new"))
        both = [a["seconds"] + b["seconds"] for a, b in zip(undo, turn, strict=True)]
        ratio = [b / a["seconds"] for a, b in zip(two, both, strict=True)]
        written = statistics.median(
            a["written_bytes"] + b["written_bytes"] for a, b in zip(undo, turn, strict=True)
        )
        cells = [
            f"`{method}`",
            spread([each["seconds"] for each in two]),
            spread([each["seconds"] for each in undo]),
            spread([each["seconds"] for each in turn]),
            spread(ratio),
            f"{statistics.median(each['written_bytes'] for each in two) / MIB:.0f}",
            f"{written / MIB:.0f}",
            f"{statistics.median(each['peak_bytes'] for each in undo) / MIB:.0f}",
            "1.00",
            f"{extra / weights:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]
