"""What the demo has come to: in numbers for summary.json, and as a table to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.settings import FOLDER, Setting
from server.cli.client import Client
from shared.metadata import version_path
from shared.weights import WeightsReader


def summarise(
    client: Client,
    setting: Setting,
    refinement: dict[str, Any],
    weights: dict[str, Path],
    before: list[float],
    after: list[float],
) -> dict[str, Any]:
    """What happened, in numbers; digests of devices are of the bytes in their slots."""
    package = client.get(f"/packages/{refinement['package_id']}")
    version = client.get(f"/models/{setting.model}/versions/2")
    devices = {d["name"]: d for d in client.get("/devices")["items"]}
    rows = []
    for name, path in weights.items():
        with WeightsReader(path) as reader:
            digest = reader.digest().hex()
        [state] = [m for m in devices[name]["models"] if m["model"] == setting.model]
        rows.append(
            {
                "id": devices[name]["id"],
                "name": name,
                "state": state["state"],
                "weights_digest": digest,
                "version": state["version"],
            }
        )
    return {
        "data": setting.title,
        "method": setting.method,
        "accuracy_before": before[0],
        "accuracy_after": after[0],
        "package_bytes": package["size_bytes"],
        "full_bytes": version["size_bytes"],
        "learnable_count": package["learnable_count"],
        "server_digest": version["weights_digest"],
        "devices": rows,
    }


def trusted(client: Client, model: str, version: int, agents: Sequence[str]) -> dict[str, Any]:
    """By which keys a version was signed, and which devices have verified that.

    A device keeps metadata only once they are verified, from the root on that its token pinned.
    """
    trust = client.get("/trust")
    keys = [key["keyid"] for key in trust["keys"] if key["role"] == "release"]
    devices = []
    for name in agents:
        path = FOLDER / name / "models" / model / "trust" / "targets.json"
        held = json.loads(path.read_text())["signed"]["targets"] if path.exists() else {}
        devices += [name] if version_path(version) in held else []
    return {"root_sha256": trust["root_sha256"], "release_keys": keys, "verified_by": devices}


def show(summary: dict[str, Any], setting: Setting, console: Console) -> None:
    """The last table, and where to look next."""
    table = Table(title=f"{setting.model}: version 1 to version 2 by {summary['method']}")
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    accuracies = [f"{summary[key]:.2%}" for key in ("accuracy_before", "accuracy_after")]
    table.add_row("accuracy on the devices' weights", *accuracies)
    share = summary["package_bytes"] / summary["full_bytes"]
    sizes = f"{summary['full_bytes']:,}", f"{summary['package_bytes']:,} ({share:.1%})"
    table.add_row("bytes to send", *sizes)
    table.add_row("seconds on the way to all devices", "", f"{summary['rollout_seconds']}")
    table.add_row("server's digest", "", summary["server_digest"][:16])
    for device in summary["devices"]:
        same = device["weights_digest"] == summary["server_digest"]
        mark = "[green]equal[/]" if same else "[red]DIFFERENT[/]"
        text = f"{device['weights_digest'][:16]} {mark}"
        table.add_row(f"{device['name']}: {device['state']}", "", text)
    Console().print(table)
    trust = summary["trust"]
    console.print(
        f"version 2 is signed by the release key {' '.join(trust['release_keys'])}, under the root "
        f"{trust['root_sha256'][:8]} that the enrolment token pins;\n"
        f"verified before the download by {', '.join(trust['verified_by']) or 'nobody'}, whose "
        "reports are signed by keys of their own.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"{summary['seconds']} s in all.\n"
        "Look next at var/demo/summary.json, the logs beside it, docs/commands.md, and\n"
        f"    .venv/bin/edge-agent status --config var/demo/{summary['devices'][0]['name']}.toml\n"
        "    .venv/bin/weft serve --data-dir var/demo/server     (key: var/demo/admin.key)",
        highlight=False,
        soft_wrap=True,
    )
