"""`weft keys rotate|revoke|renew|offline|forget`: the ceremonies that change who signs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.keys import (
    Folder,
    New,
    Online,
    SignWith,
    Yes,
    app,
    lead,
    online_folder,
    show_trust,
)
from server.cli.options import SERVER, Json, Key, Server
from server.cli.output import say, show_record
from server.errors import BadCommand

if TYPE_CHECKING:
    from server.cli.ceremony import Ceremony
    from server.cli.changing import Changing
    from server.trust.successors import Change

__all__ = ["app"]

Threshold = Annotated[
    int | None, typer.Option("--threshold", min=1, help="How many keys of the role must sign.")
]
Count = Annotated[
    int | None, typer.Option("--count", min=1, help="How many keys the role has afterwards.")
]


@app.command("rotate")
def rotate(
    role: Annotated[str, typer.Argument(help="root, release, packages, snapshot, timestamp, or "
        "online: the last three.")],
    folder: Folder = None,
    online: Online = None,
    replace: Annotated[list[str] | None, typer.Option("--replace",
        help="Id of a key to go; may be repeated. Default: all of the role.")] = None,
    new: New = None,
    count: Count = None,
    threshold: Threshold = None,
    sign_with: SignWith = None,
    install: Annotated[bool, typer.Option("--install", help="The server cannot start for want of "
        "keys: put the root into its folder.")] = False,
    yes: Yes = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:  # fmt: skip
    """Put new keys in place of a role's keys."""
    from server.cli.changing import Wish, roles_named

    roles = roles_named(role)
    if install:
        _install(role, roles, folder, online, sign_with, yes, as_json)
        return
    with lead(server, key, folder, online, sign_with, yes) as (ceremony, changing):
        wishes = [Wish(name, replace or (), count, threshold, new or ()) for name in roles]
        _finish(ceremony, changing, f"keys rotate {role}", map(changing.wanted, wishes), as_json)


@app.command("revoke")
def revoke(
    keyid: Annotated[str, typer.Argument(help="Id of the key, 8 hex digits.")],
    folder: Folder = None,
    online: Online = None,
    sign_with: SignWith = None,
    yes: Yes = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Take a key away; where too few would be left, a new one comes in its place."""
    with lead(server, key, folder, online, sign_with, yes) as (ceremony, changing):
        _finish(ceremony, changing, f"keys revoke {keyid}", changing.revoked(keyid), as_json)


@app.command("renew")
def renew(
    role: Annotated[str, typer.Argument(help="root or release.")],
    folder: Folder = None,
    sign_with: SignWith = None,
    yes: Yes = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Sign the root, or what is released, anew with the same keys, to hold longer."""
    if role not in ("root", "release"):
        raise BadCommand("invalid", "root or release: the server renews the rest by itself")
    with lead(server, key, folder, None, sign_with, yes) as (ceremony, changing):
        purpose = f"keys renew {role}"
        draft = changing.draft_root if role == "root" else changing.draft_targets
        draft(purpose)
        show_trust(ceremony.finish(purpose), as_json)


@app.command("offline")
def offline(
    folder: Annotated[Path, typer.Option("--folder", envvar="WEFT_OFFLINE_KEYS",
        help="For the new root and release keys: outside the server.")],
    online: Online = None,
    root_keys: Annotated[int, typer.Option("--root-keys", min=1, help="How many there are.")] = 3,
    threshold: Annotated[int, typer.Option("--threshold", min=1,
        help="How many root keys must sign.")] = 2,
    new: New = None,
    yes: Yes = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:  # fmt: skip
    """Move a server that made its keys itself to new root and release keys outside of it.

    Run it on the server's machine, as the server's user, while the server runs. At the end the old
    root and release keys are removed from the server's folder.
    """
    from server.cli.beginning import adopt, offline_keys
    from server.cli.changing import Wish, require_threshold, retire
    from shared.metadata import ROOT, TARGETS

    require_threshold(root_keys, threshold)
    place = online_folder(online)
    adopt(folder, place)
    old = offline_keys(place)
    with lead(server, key, folder, place, list(old.values()), yes) as (ceremony, changing):
        if not changing.is_moved(place):
            wishes = (Wish(ROOT, (), root_keys, threshold, new or ()), Wish(TARGETS, (), 1, 1))
            changing.draft("keys offline", map(changing.wanted, wishes))
            ceremony.finish("keys offline")
        for path in retire(place, old.keys() - changing.root.keys.keys()):
            say(f"removed {path}")
        show_trust(ceremony.client.get("/trust"), as_json)


@app.command("forget")
def forget(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The server's data folder.")]
        = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Forget all that was ever signed, where too few root keys are left to go on.

    On the server's machine, while no server runs. The next start begins with the keys of another
    `weft keys init`; every device must be enrolled anew, as it trusts the old root alone.
    """
    from server.cli import installing
    from server.cli.passphrases import confirm
    from server.settings import load_settings

    settings = load_settings(**({"data_dir": data_dir} if data_dir else {}))
    confirm([f"all signatures in {settings.data_dir} are removed, and every device is lost"], yes)
    installing.forget(settings)
    show_record({"forgotten": str(settings.data_dir)}, as_json)


def _install(
    word: str,
    roles: list[str],
    folder: Path | None,
    online: Path | None,
    sign_with: list[Path] | None,
    yes: bool,
    as_json: bool,
) -> None:
    from server.cli.ceremony import Signing
    from server.cli.changing import Changing
    from server.cli.installing import install_rotation
    from server.trust.desk import Desk
    from shared.metadata import PACKAGES

    place = online_folder(online)
    desk = Desk(folder or place)
    of_root = [role for role in roles if role != PACKAGES]
    if not of_root:
        raise BadCommand("invalid", "a server starts without the key of packages: rotate it then")
    signing, changing = Signing(desk, yes, sign_with or ()), Changing(desk, place)
    purpose = f"keys rotate {word} --install"
    show_record({"root": str(install_rotation(signing, changing, purpose, of_root))}, as_json)


def _finish(
    ceremony: Ceremony, changing: Changing, purpose: str, changes: Iterable[Change], as_json: bool
) -> None:
    """Draft, sign, publish; then remove what the server's folder needs no more."""
    from server.cli.changing import retire

    before = changing.in_use()
    changing.draft(purpose, changes)
    answer = ceremony.finish(purpose)
    changing.published = ceremony.published
    for path in retire(changing.online, before - changing.in_use()):
        say(f"removed {path}")
    show_trust(answer, as_json)
