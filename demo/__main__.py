"""The story: train a little, deploy, learn more, send the difference, look at the devices.

python -m demo                  digits, under two minutes
DATA=cifar10 python -m demo     the paper's setting (WEFT_DATA points at the Parquet files)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo import processes, settings
from demo.settings import FOLDER, Setting
from server import zoo
from server.cli.client import Client
from server.refine.batches import Batches
from server.refine.evaluate import accuracy
from server.refine.initial import train_initial
from server.refine.recipe import Recipe
from server.refine.weights import load_into, load_state, save_state
from server.registry.opening import open_dataset
from shared.errors import WeftError
from shared.metadata import version_path
from shared.weights import WeightsReader

AGENTS = ("camera-1", "camera-2")
ROLLOUT_SECONDS = 60
console = Console(stderr=True)


def main() -> int:
    """Run the demo; 0 when every device holds the new weights to the bit, and verified them."""
    # As an exception, so that whatever ends the demo, its processes end with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        summary = tell(settings.choose(os.environ.get("DATA", "digits")))
    except WeftError as error:
        console.print(f"[red]{error.message}[/] ({error.code}). {error.todo}")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    digests = {d["weights_digest"] for d in summary["devices"]}
    is_verified = summary["trust"]["verified_by"] == list(AGENTS)
    return 0 if is_verified and digests == {summary["server_digest"]} else 2


def tell(setting: Setting) -> dict[str, Any]:
    """The whole story; returns what is written to summary.json."""
    begin = time.monotonic()
    for name in ("server", *AGENTS):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    (FOLDER / "admin.key").unlink(missing_ok=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    console.rule(f"Weft demo: {setting.title}")
    first = train_first(setting)
    with ExitStack() as stack:
        roots = ",".join({str(Path(uri.partition("#")[0]).parent) for uri in _uris(setting)})
        server = stack.enter_context(processes.server(FOLDER, roots))
        client = stack.enter_context(Client(server.url, server.key))
        console.print(f"server at {server.url}, its API explained at /docs")
        weights = [
            stack.enter_context(
                processes.agent(FOLDER, name, server.url, server.token, setting.model)
            )
            for name in AGENTS
        ]
        register(client, setting, first)
        roll_out(client, setting.model, 1, "the initial model, whole")
        before = [measure(setting, path) for path in weights]
        refinement = refine(client, setting)
        seconds = roll_out(client, setting.model, 2, "the update")
        after = [measure(setting, path) for path in weights]
        summary = summarise(client, setting, refinement, weights, before, after)
        summary["trust"] = trusted(client, setting.model, 2)
    summary["seconds"] = round(time.monotonic() - begin, 1)
    summary["rollout_seconds"] = round(seconds, 1)
    (FOLDER / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    show(summary, setting)
    return summary


def _uris(setting: Setting) -> tuple[str, str, str]:
    return setting.initial, setting.everything, setting.test


def train_first(setting: Setting) -> Path:
    """Train the model that the devices are delivered with, on a small share of the data."""
    path = FOLDER / "initial.safetensors"
    with _bar("training the initial model") as advance:
        state = train_initial(
            setting.architecture,
            setting.arguments,
            open_dataset(setting.initial),
            Recipe.model_validate(setting.first_recipe),
            lambda p: advance(p["epoch"], p["epochs"], f"loss {p['loss']:.3f}"),
        )
    save_state(path, state)
    return path


def register(client: Client, setting: Setting, first: Path) -> None:
    """Tell the server of model, first version and data."""
    body = {
        "name": setting.model,
        "architecture": setting.architecture,
        "arguments": setting.arguments,
    }
    client.post("/models", body)
    client.upload(f"/models/{setting.model}/versions", first, lambda _: None)
    client.post("/datasets", {"name": "everything", "uri": setting.everything})
    client.post("/datasets", {"name": "test", "uri": setting.test})


def roll_out(client: Client, model: str, version: int, what: str) -> float:
    """Send every device to a version and wait until it is there; seconds that it took."""
    begin = time.monotonic()
    wanted = len(AGENTS)
    processes.wait_for(
        "the devices", lambda: len(client.get("/devices")["items"]) >= wanted or None, 30
    )
    rollout = client.post("/rollouts", {"model": model, "version": version})
    with _bar(f"sending {what}") as advance:

        def committed() -> bool | None:
            found = client.get(f"/rollouts/{rollout['id']}")["assignments"]
            done = found.get("committed", 0)
            advance(done, wanted, ", ".join(f"{n} {state}" for state, n in found.items()))
            return True if done >= wanted else None

        processes.wait_for("the rollout", committed, ROLLOUT_SECONDS)
    return time.monotonic() - begin


def refine(client: Client, setting: Setting) -> dict[str, Any]:
    """Refine on the server with all the data, and follow it."""
    body = {
        "model": setting.model,
        "dataset": "everything",
        "evaluation_dataset": "test",
        "method": {"id": setting.method, "options": setting.options},
        "recipe": setting.recipe,
    }
    refinement: dict[str, Any] = client.post("/refinements", body)
    with _bar(f"refining by {setting.method}") as advance:
        for event in client.follow(f"/refinements/{refinement['id']}/events"):
            refinement = event
            progress = event.get("progress") or {}
            advance(
                progress.get("epoch") or 0,
                progress.get("epochs") or 1,
                f"{progress.get('stage') or event['state']}",
            )
    if refinement["state"] != "succeeded":
        error = refinement.get("error") or {"message": f"it is {refinement['state']}"}
        raise processes.DemoFailed("died", f"the refinement failed: {error['message']}")
    return refinement


def measure(setting: Setting, weights: Path) -> float:
    """Accuracy on the test data of the weights that lie in a device's slot."""
    module = zoo.get(setting.architecture).build(setting.arguments)
    load_into(module, load_state(weights))
    return accuracy(module, Batches.of(open_dataset(setting.test), torch.device("cpu")))


def summarise(
    client: Client,
    setting: Setting,
    refinement: dict[str, Any],
    weights: list[Path],
    before: list[float],
    after: list[float],
) -> dict[str, Any]:
    """What happened, in numbers; digests of devices are of the bytes in their slots."""
    package = client.get(f"/packages/{refinement['package_id']}")
    version = client.get(f"/models/{setting.model}/versions/2")
    devices = {d["name"]: d for d in client.get("/devices")["items"]}
    rows = []
    for name, path in zip(AGENTS, weights, strict=True):
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


def trusted(client: Client, model: str, version: int) -> dict[str, Any]:
    """By which keys a version was signed, and which devices have verified that.

    A device keeps metadata only once they are verified, from the root on that its token pinned.
    """
    trust = client.get("/trust")
    keys = [key["keyid"] for key in trust["keys"] if key["role"] == "release"]
    devices = []
    for name in AGENTS:
        path = FOLDER / name / "models" / model / "trust" / "targets.json"
        held = json.loads(path.read_text())["signed"]["targets"] if path.exists() else {}
        devices += [name] if version_path(version) in held else []
    return {"root_sha256": trust["root_sha256"], "release_keys": keys, "verified_by": devices}


def show(summary: dict[str, Any], setting: Setting) -> None:
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
        f"    .venv/bin/edge-agent status --config var/demo/{AGENTS[0]}.toml\n"
        "    .venv/bin/weft serve --data-dir var/demo/server     (key: var/demo/admin.key)",
        highlight=False,
        soft_wrap=True,
    )


class _bar:  # noqa: N801  # reads as a verb where it is used
    """A progress bar on stderr: `with _bar(title) as advance: advance(done, of, note)`."""

    def __init__(self, title: str) -> None:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(title, total=None, note="")

    def __enter__(self) -> Any:
        self._progress.start()
        return self._advance

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _advance(self, done: float, of: float, note: str) -> None:
        self._progress.update(self._task, completed=done, total=of, note=note)


if __name__ == "__main__":
    sys.exit(main())
