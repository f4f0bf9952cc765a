"""`weft groups`: saved filters over devices, and what holds for those that match."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import quote

import typer

from server.cli.devices import show_devices
from server.cli.listing import add_list
from server.cli.options import SERVER, Cursor, Json, Key, Limit, Server, connect
from server.cli.output import show_record
from server.errors import BadCommand

app = typer.Typer(help="Groups: saved filters over devices.", no_args_is_help=True)
COLUMNS = ("name", "filter", "devices", "poll_interval", "update_budget", "created_at")
BRIEF = ("name", "filter", "poll_interval", "update_budget")

#: How an option asks for the server's own setting.
DEFAULT = "default"

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the group.")]
Text = Annotated[str, typer.Argument(metavar="FILTER", help="Which devices; see docs/filters.md.")]
PollInterval = Annotated[
    str | None,
    typer.Option("--poll-interval", help="Seconds between polls, or `default`: the server's."),
]
UpdateBudget = Annotated[
    str | None,
    typer.Option(
        "--update-budget", help="Most bytes of an update; 0: no limit; `default`: the server's."
    ),
]


@app.command("create")
def create(
    name: Name,
    text: Text,
    poll_interval: PollInterval = None,
    update_budget: UpdateBudget = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Save a filter under a name."""
    body = {"name": name, "filter": text, **_policy(poll_interval, update_budget)}
    with connect(server, key) as client:
        show_record(client.post("/groups", body), as_json, COLUMNS)


add_list(app, "/groups", BRIEF, "List the groups, by name.")


@app.command("show")
def show(name: Name, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one group, with its devices counted."""
    with connect(server, key) as client:
        show_record(client.get(_path(name)), as_json, COLUMNS)


@app.command("update")
def update(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="The new name.")] = None,
    text: Annotated[
        str | None, typer.Option("--filter", help="The new filter; see docs/filters.md.")
    ] = None,
    poll_interval: PollInterval = None,
    update_budget: UpdateBudget = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Change a group; what is not given stays."""
    given = {"name": new_name, "filter": text}
    body = {field: value for field, value in given.items() if value is not None}
    body |= _policy(poll_interval, update_budget)
    with connect(server, key) as client:
        show_record(client.patch(_path(name), body), as_json, COLUMNS)


@app.command("delete")
def delete(name: Name, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Delete a group that no other group and no rollout names; its devices stay."""
    with connect(server, key) as client:
        client.delete(_path(name))
    show_record({"deleted": name}, as_json)


@app.command("devices")
def devices(
    name: Name,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List the devices that match a group's filter now."""
    with connect(server, key) as client:
        page = client.get(_path(name, "/devices"), limit=limit, cursor=cursor)
        show_devices(page, as_json)


def _path(name: str, rest: str = "") -> str:
    return f"/groups/{quote(name, safe='')}{rest}"


def _policy(poll_interval: str | None, update_budget: str | None) -> dict[str, Any]:
    """The fields that were given. Raises BadCommand."""
    given: dict[str, Any] = {}
    if poll_interval is not None:
        given["poll_interval"] = _number("--poll-interval", poll_interval)
    if update_budget is not None:
        given["update_budget"] = _number("--update-budget", update_budget)
    return given


def _number(option: str, text: str) -> float | None:
    if text == DEFAULT:
        return None
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,6})?", text):
        raise BadCommand("invalid", f"{option}: {text!r} is no whole number, nor `{DEFAULT}`")
    return int(text) if text.isdecimal() else float(text)
