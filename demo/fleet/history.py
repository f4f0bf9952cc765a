"""What the server's history tells of the story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from server.cli.client import Client


def show_history(client: Client) -> None:
    """The rollouts' events as they happened, and the devices' in numbers between them."""
    table = Table(title="What history tells", box=None, title_justify="left")
    for column in ("at", "rollout", "what", "about"):
        table.add_column(column)
    between: Counter[tuple[int, str]] = Counter()

    def tell_devices() -> None:
        for (rollout, kind), count in between.items():
            table.add_row("", str(rollout), f"{count} x {kind}", "", style="dim")
        between.clear()

    for event in _events(client):
        if event["kind"].startswith("assignment."):
            between[event["rollout_id"], event["kind"]] += 1
            continue
        tell_devices()
        table.add_row(
            event["at"][11:19], str(event["rollout_id"]), event["kind"], _about(event["data"])
        )
    tell_devices()
    Console(highlight=False, width=100).print(table)


def _about(data: dict[str, Any]) -> str:
    """The short facts of an event, and the reason in words."""
    counted = data | {"phase": data["phase"] + 1} if "phase" in data else data
    facts = [f"{name} {value}" for name, value in counted.items() if isinstance(value, int | str)]
    reason = data.get("reason") or {}
    return ", ".join([*facts, *([reason["message"]] if "message" in reason else [])])


def _events(client: Client) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = client.get("/events", order="oldest", limit=500, cursor=cursor)
        for event in page["items"]:
            if event["rollout_id"] is not None:
                yield event
        cursor = page["next"]
        if cursor is None:
            return
