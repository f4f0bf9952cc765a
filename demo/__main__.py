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

from demo import processes, settings
from demo.settings import FOLDER, Setting
from demo.summary import show, summarise, trusted
from server import zoo
from server.cli.client import Client
from server.refine.batches import Batches
from server.refine.evaluate import accuracy
from server.refine.initial import train_initial
from server.refine.recipe import Recipe
from server.refine.weights import load_into, load_state, save_state
from server.registry.opening import open_dataset
from shared.errors import WeftError

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
        in_slots = dict(zip(AGENTS, weights, strict=True))
        summary = summarise(client, setting, refinement, in_slots, before, after)
        summary["trust"] = trusted(client, setting.model, 2, AGENTS)
    summary["seconds"] = round(time.monotonic() - begin, 1)
    summary["rollout_seconds"] = round(seconds, 1)
    (FOLDER / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    show(summary, setting, console)
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
