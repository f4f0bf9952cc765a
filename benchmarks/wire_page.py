"""The page of `make bench-wire`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WHAT = ("poll", "metadata", "package", "report")


def page(record: Mapping[str, Any]) -> str:
    """docs/results/wire.md, from what is in benchmarks/results/wire.json."""
    limits, idle, enrolment = record["limits"], record["idle"], record["enrolment"]
    lines = [
        "# Bytes on the wire",
        "",
        f"Made by `{record['command']}`: a real server and real agents with everything on, and "
        "between them a line that counts",
        "HTTP as it is: heads and bodies, in both directions, without TLS. The figures do not "
        "depend on the machine; names of",
        "hosts and devices, and times in figures, make a few bytes more or less.",
        "",
        "| exchange | to the server | to the device | together |",
        "|---|---|---|---|",
        _exchange("idle poll (304)", idle),
        _exchange("enrolment, with the first root", enrolment),
        "",
        f"The answer to an idle poll may have {limits['idle']} bytes: {_verdict(idle['met'])}.",
        "",
        "## Whole updates",
        "",
        "A poll between the deployment and the moment at which the rollout lets the device in "
        "takes about 430 bytes",
        "more; it is not counted here, where devices poll five times a second.",
        "",
        "Each is poll, metadata, package, report; both directions of each, and of the package what "
        "is beside its bytes. A",
        "*fresh* device holds no metadata but the root, a *known* one those of its update before. "
        f"An update may take {limits['bytes']:,} bytes",
        f"beside its package, in {limits['exchanges']} exchanges: "
        f"{_verdict(all(update['met'] for update in record['updates']))}.",
        "",
        "| versions released | packages listed | device | poll | metadata | package, without its "
        "bytes | report | exchanges | together |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_update, record["updates"]),
        "",
    ]
    return "\n".join(lines)


def _exchange(name: str, found: Mapping[str, int]) -> str:
    up, down = found["up"], found["down"]
    return f"| {name} | {up:,} | {down:,} | {up + down:,} |"


def _update(update: Mapping[str, Any]) -> str:
    sizes = dict.fromkeys(WHAT, 0)
    for exchange in update["exchanges"]:
        sizes[exchange["what"]] += exchange["up"] + exchange["down"]
    sizes["package"] -= update["package_bytes"]
    cells = [
        str(update["released"]),
        str(update["listed"]),
        update["device"],
        *(f"{sizes[what]:,}" for what in WHAT),
        str(len(update["exchanges"])),
        f"{update['beside_package']:,}",
    ]
    return f"| {' | '.join(cells)} |"


def _verdict(met: bool) -> str:
    return "met" if met else "**not met**"
