"""`weft devices`: what the devices hold, and what operators say of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from server.cli.client import Client, Refused
from server.cli.options import SERVER, Cursor, Json, Key, Limit, ModelFilter, Server, connect
from server.cli.output import show_json, show_page, show_record, show_table
from server.errors import BadCommand, BadDevice

app = typer.Typer(help="Devices: what they hold and when they were seen.", no_args_is_help=True)
BRIEF = ("name", "id", "tags", "runs", "failures", "last_seen_at")
WHOLE = (
    *(
        "id",
        "name",
        "standing",
        "tags",
        "allowed_models",
        "attributes",
        "agent",
        "decodes",
        "poll_interval",
    ),
    *("update_budget", "failures", "public_key", "token_expires_at", "last_seen_at", "created_at"),
)
HELD = ("model", "version", "digest", "slots", "state", "health", "to", "rollout", "held")
#: How many ids the refusal of an ambiguous name lists.
LISTED = 10

Filter = Annotated[
    str | None, typer.Option("--filter", help="Only those that match; see docs/filters.md.")
]
Device = Annotated[str, typer.Argument(metavar="DEVICE", help="Id or name of the device.")]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="Id or name of a device; may be given repeatedly."),
]
Tags = Annotated[list[str], typer.Argument(metavar="TAG...", help="One tag or several.")]


@app.command("list")
def list_devices(
    filter_: Filter = None,
    model: ModelFilter = None,
    silent_for: Annotated[
        str | None,
        typer.Option("--silent-for", help="Only those not seen for so long: 90m, 12h, 7d, 4w."),
    ] = None,
    sort: Annotated[str, typer.Option("--sort", help="newest, name or id.")] = "newest",
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List the devices."""
    text = filter_
    if silent_for is not None:
        if re.fullmatch(r"\d{1,9}[smhdw]", silent_for) is None:
            text = f"--silent-for: {silent_for!r} is no time: write 90m, 12h, 7d or 4w"
            raise BadCommand("invalid", text)
        silent = f"(last_seen=lt=-{silent_for},last_seen=null=true)"
        text = silent if filter_ is None else f"({filter_});{silent}"
    query = {"filter": text, "model": model, "sort": sort, "limit": limit, "cursor": cursor}
    with connect(server, key) as client:
        show_devices(client.get("/devices", **query), as_json)


@app.command("show")
def show(device: Device, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one device, with the weights of each of its models."""
    with connect(server, key) as client:
        found = find_device(client, device)
    show_device(found, as_json)


@app.command("tag")
def tag(
    tags: Tags,
    device: Devices = None,
    filter_: Filter = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Put tags on devices: those named by --device, or all that match --filter."""
    with connect(server, key) as client:
        _change_tags(client, device, filter_, {"add": tags}, as_json)


@app.command("untag")
def untag(
    tags: Tags,
    device: Devices = None,
    filter_: Filter = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Take tags off devices: those named by --device, or all that match --filter."""
    with connect(server, key) as client:
        _change_tags(client, device, filter_, {"remove": tags}, as_json)


@app.command("rename")
def rename(
    device: Device,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")],
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Give a device another name."""
    with connect(server, key) as client:
        found = find_device(client, device)
        show_device(client.patch(f"/devices/{found['id']}", {"name": name}), as_json)


@app.command("clear-failures")
def clear_failures(
    device: Device, as_json: Json = False, server: Server = SERVER, key: Key = None
) -> None:
    """Forget that a device's updates failed."""
    with connect(server, key) as client:
        found = find_device(client, device)
        show_device(client.patch(f"/devices/{found['id']}", {"failures": 0}), as_json)


def find_device(client: Client, device: str) -> Any:
    """The device of that id or name. Raises BadDevice `ambiguous`, `not_found`, and Refused."""
    try:
        return client.get(f"/devices/{quote(device, safe='')}")
    except Refused as refused:
        if refused.code != "device.not_found":
            raise
    quoted = device.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
    page = client.get("/devices", filter=f'name=="{quoted}"', sort="id", limit=LISTED)
    found = page["items"]
    if not found:
        raise BadDevice("not_found", f"there is no device {device!r}")
    if len(found) > 1:
        more = ", ..." if page["next"] else ""
        ids = ", ".join(item["id"] for item in found)
        raise BadDevice("ambiguous", f"several devices have the name {device!r}: {ids}{more}")
    return found[0]


def show_device(device: Mapping[str, Any], as_json: bool) -> None:
    """One device: what is said of it, then a line for each of its models."""
    if as_json:
        show_json(device)
        return
    able = device["capabilities"]
    attributes = (f"{name}={value}" for name, value in device["attributes"].items())
    told = {
        "tags": _joined(device["tags"]),
        "attributes": _joined(attributes),
        "agent": able.get("agent"),
        "decodes": _joined(able.get("methods", ())),
    }
    show_record({**device, **told}, False, WHOLE)
    show_table(map(_model_row, device["models"]), HELD)


def _model_row(held: Mapping[str, Any]) -> dict[str, Any]:
    """What the table of models says of one; `slots` are the versions that it can switch to."""
    open_ = held["assignment"] or {}
    slots = _joined(str(slot["version"] or "?") for slot in held["slots"])
    to = {"to": open_.get("version"), "rollout": open_.get("rollout"), "held": open_.get("held")}
    return {**held, **to, "digest": held["weights_digest"], "slots": slots}


def show_devices(page: Mapping[str, Any], as_json: bool) -> None:
    """A page of devices as a table: a line each, with the version of each model that it runs."""
    rows = [{**item, "runs": _runs(item), "tags": _joined(item["tags"])} for item in page["items"]]
    show_page(page if as_json else {**page, "items": rows}, as_json, BRIEF)


def _runs(device: Mapping[str, Any]) -> str | None:
    """`digits 3 -> 4`: the version in use, and the one that it is on its way to.

    Before it what is to be known first: that it is `pending`, `cloned` or `decommissioned`.
    """
    standing = () if device["standing"] == "accepted" else (device["standing"],)
    runs = (
        f"{held['model']} {held['version'] or '?'}"
        + (f" -> {held['assignment']['version']}" if held["assignment"] else "")
        for held in device["models"]
    )
    return _joined((*standing, *runs))


def _joined(words: Iterable[str]) -> str | None:
    return ", ".join(words) or None


def _change_tags(
    client: Client,
    devices: list[str] | None,
    text: str | None,
    change: Mapping[str, list[str]],
    as_json: bool,
) -> None:
    if bool(devices) == (text is not None):
        raise BadCommand("invalid", "name the devices: either by --device or by --filter")
    if text is not None:
        show_record(client.post("/devices/tags", {"filter": text, **change}), as_json)
        return
    # All are found before the first is changed: a name that is wrong changes nothing.
    ids = [find_device(client, device)["id"] for device in devices or ()]
    answers = [client.post("/devices/tags", {"filter": f"id=={id_}", **change}) for id_ in ids]
    totals = {name: sum(answer[name] for answer in answers) for name in ("matched", "changed")}
    show_record(totals, as_json)
