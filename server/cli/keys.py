"""`weft keys`: the keys that sign what devices may install, and the ceremonies that change them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.options import SERVER, Json, Key, Server, connect
from server.cli.output import say, show_json, show_record, show_table
from server.errors import BadCommand
from server.settings import load_settings

if TYPE_CHECKING:
    from server.cli.ceremony import Ceremony
    from server.cli.changing import Changing

app = typer.Typer(help="Keys that sign what devices may install.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        envvar="WEFT_OFFLINE_KEYS",
        help="Where root and release keys lie, with drafts; default: the server's keys folder.",
    ),
]
Online = Annotated[
    Path | None,
    typer.Option("--online", help="The server's keys folder; default: as the settings say."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Sign without asking.")]
SignWith = Annotated[
    list[Path] | None,
    typer.Option("--sign-with", help="A private key in another folder; may be repeated."),
]
New = Annotated[
    list[Path] | None,
    typer.Option("--new", help="Public key that its holder has made; may be repeated."),
]


def online_folder(given: Path | None) -> Path:
    """The folder of keys that the server reads."""
    return given or load_settings().keys_folder


@app.command("init")
def init(
    folder: Annotated[Path, typer.Option("--folder", envvar="WEFT_OFFLINE_KEYS",
        help="For root and release keys: outside the server.")],
    online: Online = None,
    root_keys: Annotated[int, typer.Option("--root-keys", min=1, help="How many there are.")] = 3,
    threshold: Annotated[int, typer.Option("--threshold", min=1,
        help="How many root keys must sign.")] = 2,
    new: New = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Make all keys and the first root, before a server starts for the first time.

    Keys that others have made elsewhere (`weft keys make`) are given by `--new`, as the public keys
    that lie beside them; the rest is made here. Where others must sign too, run it again when they
    have.
    """
    from server.cli.beginning import Beginning
    from server.trust.keys import ONLINE, named_role

    given = new or []
    made_there = set(ONLINE) <= {named_role(path) for path in given}
    place = None if made_there and online is None else online_folder(online)
    show_record(Beginning(folder, place, root_keys, threshold, given).run(yes), as_json)


@app.command("make")
def make(
    role: Annotated[str, typer.Argument(help="root, release, packages, snapshot or timestamp.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where to put it.")],
    uri: Annotated[str | None, typer.Option("--uri", help="Of a key in a KMS or HSM.")] = None,
    public: Annotated[
        Path | None, typer.Option("--public", help="Its public key, as a PEM file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key, to be taken up by a ceremony; with `--uri` name one that lies elsewhere."""
    from server.cli.changing import make_key
    from server.trust.keys import (
        fingerprint,
        load_public,
        role_of,
        write_public,
        write_reference,
    )

    if (uri is None) != (public is None):
        raise BadCommand("invalid", "--uri and --public go together")
    wanted = role_of(role)
    if uri is not None and public is not None:
        far = load_public(public)
        write_reference(folder, wanted, uri, far)
        write_public(folder, wanted, far)
    else:
        far = make_key(folder, wanted)
    told = {"role": role, "keyid": far.keyid, "fingerprint": fingerprint(far)}
    show_record({**told, "folder": str(folder)}, as_json)


@app.command("status")
def status(
    folder: Folder = None, as_json: Json = False, server: Server = SERVER, key: Key = None
) -> None:
    """Show who signs what, where the private keys lie, and until when it holds."""
    from server.cli.key_status import key_status

    with connect(server, key) as client:
        told = key_status(client, folder)
    if as_json:
        show_json(told)
        return
    show_table(told["keys"], ("role", "keyid", "threshold", "private"))
    show_table(told["documents"], ("model", "role", "version", "expires_at", "state"))
    for draft in told["drafts"]:
        say(f"draft {draft['path']}: {draft['standing']}")


@app.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(help="A draft, `....draft.json`.")],
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Your keys and the roots; default: the draft's folder."),
    ] = None,
    sign_with: SignWith = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Show a draft in words, and add the signatures of the keys in your folder."""
    from server.cli.ceremony import Signing
    from server.trust.desk import Desk

    signing = Signing(Desk(folder or file.parent), yes, sign_with or ())
    show_record(signing.sign_alone(file), as_json)


@app.command("publish")
def publish(
    folder: Folder = None, as_json: Json = False, server: Server = SERVER, key: Key = None
) -> None:
    """Send the drafts of a folder that all have signed to the server."""
    with lead(server, key, folder, yes=True) as (ceremony, _):
        for purpose in ceremony.publish_all():
            say(f"published: {purpose}")
        show_trust(ceremony.client.get("/trust"), as_json)


@contextmanager
def lead(
    server: str,
    key: str | None,
    folder: Path | None,
    online: Path | None = None,
    sign_with: Sequence[Path] | None = None,
    yes: bool = False,
) -> Iterator[tuple[Ceremony, Changing]]:
    """A ceremony that has caught up with the server, and what it may change."""
    from server.cli.ceremony import Ceremony
    from server.cli.changing import Changing
    from server.trust.desk import Desk

    place = online_folder(online)
    desk = Desk(folder or place)
    with connect(server, key) as client:
        ceremony = Ceremony(client, desk, yes, sign_with or ())
        yield ceremony, Changing(desk, place, ceremony.published)


def show_trust(told: Mapping[str, Any], as_json: bool) -> None:
    """Who signs what, as the server tells it after a ceremony."""
    if as_json:
        show_json(told)
        return
    show_table(told["keys"], ("role", "keyid", "threshold", "on_server"))
