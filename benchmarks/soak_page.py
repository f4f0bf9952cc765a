"""The page of `make soak-edge`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def page(record: Mapping[str, Any]) -> str:
    """docs/results/soak.md, from what is in benchmarks/results/soak.json."""
    least, most = record["cut_after"]
    shortest, longest = record["lives"]
    machine = record["machine"]
    lines = [
        "# Updates to an agent that is killed all the time",
        "",
        f"Made by `make soak-edge` on {machine['processor']}, {machine['cores']} cores, "
        f"Python {machine['python']}.",
        "A real server, a real `edge-agent run`, and between them a line that carries "
        f"{record['rate']:,.0f} bytes a second to the",
        f"agent and cuts each connection (RST) after {least:,} to {most:,} of them. The agent is "
        "killed by SIGKILL after a random",
        f"life of {shortest} to {longest} s and started again at once; after each kill `current` "
        "must lead to wholly the old or wholly the new",
        "weights (in place also to nothing, while the file is mixed), and after each update to "
        "those of the version.",
        "",
        "| mode | updates | kills | package bytes | bytes to the agent | ratio | cuts | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(run) for run in record["runs"]),
        "",
        "Bytes to the agent are all that the line has carried to it: polls, headers and answers to "
        "reports too. The target",
        f"is at most {record['most_bytes_ratio']} times the packages: {_verdict(record)}.",
        "",
        "Where its journal stood when it was killed:",
        "",
        "| mode | states |",
        "|---|---|",
        *(f"| `{run['mode']}` | {_states(run)} |" for run in record["runs"]),
        "",
    ]
    return "\n".join(lines)


def _row(run: Mapping[str, Any]) -> str:
    return (
        f"| `{run['mode']}` | {run['updates']} | {run['kills']} | {run['package_bytes']:,} "
        f"| {run['downloaded_bytes']:,} | {run['bytes_ratio']:.3f} | {run['cuts']} "
        f"| {run['seconds']:.0f} |"
    )


def _states(run: Mapping[str, Any]) -> str:
    return ", ".join(f"`{state}` {count}" for state, count in run["killed_in"].items())


def _verdict(record: Mapping[str, Any]) -> str:
    return "met" if all(run["met"] for run in record["runs"]) else "**not met**"
