"""`weft devices accept` and its like: who is let in, who goes, and what was signed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from server.cli.devices import Device, find_device, show_device
from server.cli.options import SERVER, Cursor, Json, Key, Limit, ModelFilter, Server, connect
from server.cli.output import show_json, show_page, show_record, show_table
from server.cli.tokens import Days, ForEver, ForModels, lifetime
from server.errors import BadCommand, BadDevice

EXPECTED = ("id", "name", "key", "tags", "models", "device_id", "created_at")
PROVEN = ("model", "weights_digest", "state", "at", "counter", "in_use", "signature")


def accept(device: Device, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Offer a device what the others get: one that waits, or one that was taken for two."""
    _order(device, "accept", as_json, server, key)


def decommission(
    device: Device, as_json: Json = False, server: Server = SERVER, key: Key = None
) -> None:
    """Take a device out of service for good; its history stays."""
    _order(device, "decommission", as_json, server, key)


def allow(
    device: Device,
    model: ForModels = None,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Let it claim whatever it likes.")
    ] = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Say which models a device may claim: these and no other, or any."""
    if any_model == bool(model):
        raise BadCommand("invalid", "say which: either by --model or by --any-model")
    with connect(server, key) as client:
        found = find_device(client, device)
        path = f"/devices/{found['id']}/allowed_models"
        show_device(client.put(path, {"models": model or None}), as_json)


def _order(device: str, what: str, as_json: bool, server: str, key: str | None) -> None:
    with connect(server, key) as client:
        found = find_device(client, device)
        show_device(client.post(f"/devices/{found['id']}/{what}"), as_json)


def reenrol(
    device: Device,
    days: Days = None,
    for_ever: ForEver = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Make a token by which a device enrols as itself with a new key; its old key ends then."""
    with connect(server, key) as client:
        found = find_device(client, device)
        made = client.post(f"/devices/{found['id']}/reenrol", lifetime(days, for_ever))
    show_record(made, as_json, ("id", "device_id", "expires_at", "token"))


def preauthorise(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name that it will enrol under.")
    ] = None,
    device_key: Annotated[
        str | None, typer.Option("--device-key", help="What `edge-agent key` prints on it.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="A tag for it; may be repeated.")
    ] = None,
    model: ForModels = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Expect a device: by its name, its key, or both; it need not wait when it comes."""
    body = {"name": name, "key": device_key, "tags": tag or [], "models": model or None}
    with connect(server, key) as client:
        show_record(client.post("/preauthorisations", body), as_json, EXPECTED)


def preauthorised(
    withdraw: Annotated[
        int | None, typer.Option("--withdraw", metavar="ID", help="Expect this one no longer.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List the devices that were expected, and which have come."""
    with connect(server, key) as client:
        if withdraw is not None:
            client.delete(f"/preauthorisations/{withdraw}")
            show_record({"withdrawn": withdraw}, as_json)
            return
        page = client.get("/preauthorisations", limit=limit, cursor=cursor)
    show_page(page, as_json, EXPECTED)


def prove(
    device: Device,
    model: ModelFilter = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every report that is kept, not only what is in use.")
    ] = False,
    device_key: Annotated[
        str | None,
        typer.Option("--device-key", help="The key that it must be, known from elsewhere."),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Verify here, by the device's signatures, what it has reported to run."""
    query = {"model": model, "in_use": None if every else True, "limit": limit, "cursor": cursor}
    with connect(server, key) as client:
        found = find_device(client, device)
        page = client.get(f"/devices/{found['id']}/reports", **query)
    rows = [_verified(found["id"], row, device_key) for row in page["items"]]
    if as_json:
        show_json({**page, "device_id": found["id"], "items": rows})
    else:
        show_table([{**row, "signature": _word(row)} for row in rows], PROVEN)
    if not all(row["verified"] for row in rows):
        raise BadDevice("bad_signature", "not all of it is signed by the device's key")


def _verified(device_id: str, row: dict[str, Any], device_key: str | None) -> dict[str, Any]:
    """The report, and whether the key has signed it and it says what the server shows of it."""
    from server.devices.signatures import has_signed

    body = row["body"].encode()
    said = json.loads(body)
    shown = ("model", "counter", "state", "weights_digest")
    is_so = all(said.get(name) == row[name] for name in shown)
    wanted = device_key in (None, row["public_key"])
    signed = has_signed(row["public_key"], "report", device_id, body, row["signature"])
    return {**row, "verified": is_so and wanted and signed}


def _word(row: dict[str, Any]) -> str:
    return "good" if row["verified"] else "NOT GOOD"
