"""`weft access`: who may ask the server, and for what; `weft login` and `weft recover-key`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from server.cli import key_file
from server.cli.listing import add_list
from server.cli.options import SERVER, Json, Key, Server, connect
from server.cli.output import say, show_record
from server.cli.serve import DataDir
from server.errors import BadCommand
from server.settings import load_settings

app = typer.Typer(help="Keys of operators, and what each may do.", no_args_is_help=True)

COLUMNS = ("name", "role", "models", "groups", "state", "expires_at", "last_used_at", "created_by")
FIELDS = (*COLUMNS, "created_at", "revoked_at", "last_used_from")
ME = ("server", "name", "role", "models", "groups")


class Role(StrEnum):
    """What a key may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What history will say.")],
    role: Annotated[Role, typer.Option("--role", help="What it may do.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only this model; may be repeated.")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="Only the devices of this group; may be repeated."),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", min=0.001, help="How long it lives; else for ever.")
    ] = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Make a key; its text is shown this once."""
    until = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    body = {
        "name": name,
        "role": role.value,
        "models": model or None,
        "groups": group or None,
        "expires_at": until,
    }
    with connect(server, key) as client:
        made = client.post("/access/keys", body)
    show_record(made, as_json, ("name", "role", "models", "groups", "expires_at", "key"))


add_list(app, "/access/keys", COLUMNS, "List keys by name, also those that are revoked.")


@app.command("show")
def show(name: Name, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one key: what it may do, and when it was last used."""
    with connect(server, key) as client:
        show_record(client.get(f"/access/keys/{name}"), as_json, FIELDS)


@app.command("revoke")
def revoke(name: Name, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Have a key open nothing any more."""
    with connect(server, key) as client:
        show_record(client.post(f"/access/keys/{name}/revoke"), as_json, FIELDS)


@app.command("whoami")
def whoami(as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show as whom the server sees you."""
    with connect(server, key) as client:
        show_record({"server": client.server, **client.get("/access/me")}, as_json, ME)


def login(as_json: Json = False, server: Server = SERVER) -> None:
    """Keep a key for a server, in a file that only you can read; it is asked for, or read."""
    text = typer.prompt("key", hide_input=True, err=True) if sys.stdin.isatty() else _piped()
    with connect(server, text.strip()) as client:
        me = client.get("/access/me")
        path = key_file.persist_key(client.server, text.strip())
        show_record({"server": client.server, **me, "file": str(path)}, as_json, (*ME, "file"))


def recover_key(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="What history will say.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make another admin key, on the server's machine, where all others are lost."""
    from server.auth.first_key import another_key
    from server.db import check_current, open_existing

    settings = load_settings(**({"data_dir": data_dir} if data_dir else {}))
    name = name or f"recovered-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    engine = open_existing(settings.url)
    try:
        check_current(engine)
        text = another_key(engine, name)
    finally:
        engine.dispose()
    show_record({"name": name, "role": "admin", "key": text}, as_json)
    say("it is not shown again; revoke those that are lost: `weft access revoke`")


def _piped() -> str:
    text = sys.stdin.readline()
    if not text.strip():
        raise BadCommand("invalid", "there is no key on the standard input")
    return text
