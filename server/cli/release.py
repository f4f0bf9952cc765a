"""`weft release`, `weft versions withdraw`: which versions devices may install."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from server.cli.client import Client
from server.cli.keys import Folder, SignWith, Yes
from server.cli.options import SERVER, Json, Key, Server, connect
from server.cli.output import say, show_record, transfer
from server.errors import BadCeremony, BadTrust

if TYPE_CHECKING:
    from securesystemslib.signer import Key as PublicKey
    from tuf.api.metadata import TargetFile, Targets

    from server.cli.ceremony import Ceremony

BRIEF = ("model", "number", "weights_digest", "released_at", "withdrawn_at")

Number = Annotated[int, typer.Argument(min=1, help="Number of the version.")]


def release(
    model: str,
    number: Number,
    digest: Annotated[str | None, typer.Option("--digest",
        help="Weights digest that the version must have.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights",
        help="The same weights as you have them; else they are fetched.")] = None,
    folder: Folder = None,
    sign_with: SignWith = None,
    yes: Yes = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:  # fmt: skip
    """Sign a version with the release key: devices may install it then.

    With the folder of the release key the weights are fetched and digested here, and what is signed
    here is sent. Without it the server signs, if the release key lies there.
    """
    with connect(server, key) as client:
        path = _path(model, number)
        version = client.get(path)
        _require(version, digest)
        file = _digested(number, weights) if weights else None
        _require(version, file.hashes["sha256"] if file else None)
        if folder is None:
            client.post(f"{path}/release")
        else:
            if file is None:
                file = _fetched(client, path, number)
                _require(version, file.hashes["sha256"])
            _sign_here(_ceremony(client, folder, sign_with, yes), model, number, file)
        show_record(client.get(path), as_json, BRIEF)


def withdraw(
    model: str,
    number: Number,
    folder: Folder = None,
    sign_with: SignWith = None,
    yes: Yes = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Take a version back for ever: no device installs it any more; those that run it go on.

    The server stops offering it at once. Where the release key lies elsewhere, the list of released
    versions is then signed here without it.
    """
    from server.trust.documents import Frame
    from server.trust.successors import targets_after
    from shared.metadata import version_path

    with connect(server, key) as client:
        path, dropped = _path(model, number), version_path(number)
        left = client.post(f"{path}/withdraw")
        if folder is None and left["released_at"] is not None:
            told = f"version {number} is offered no more, but the signed list still has it"
            raise BadTrust("release_key_offline", told)
        if folder is not None:
            ceremony = _ceremony(client, folder, sign_with, yes)
            current = ceremony.published.get(model)
            if current is not None and dropped in current.signed.targets:
                from server.tables import now

                purpose, frame = f"versions withdraw {model} {number}", Frame(model, now())
                ceremony.desk.draft(
                    ceremony.desk.targets_draft(model),
                    purpose,
                    lambda: targets_after(current.signed, frame, dropped=[dropped]),
                )
                ceremony.finish(purpose)
        show_record(client.get(path), as_json, BRIEF)


def _path(model: str, number: int) -> str:
    return f"/models/{quote(model, safe='')}/versions/{number}"


def _ceremony(client: Client, folder: Path, sign_with: list[Path] | None, yes: bool) -> Ceremony:
    from server.cli.ceremony import Ceremony
    from server.trust.desk import Desk

    return Ceremony(client, Desk(folder), yes, sign_with or ())


def _require(version: dict[str, Any], digest: str | None) -> None:
    """Raise BadCeremony `wrong_digest` where the server's version is not the one that is meant."""
    if digest is not None and digest.lower() != version["weights_digest"]:
        told = f"version {version['number']} of {version['model']} is {version['weights_digest']}"
        raise BadCeremony("wrong_digest", f"{told}, and not {digest}")


def _fetched(client: Client, path: str, number: int) -> TargetFile:
    with tempfile.TemporaryDirectory(prefix="weft-release-") as place:
        file = Path(place) / "weights.safetensors"
        say(f"fetching the weights of version {number}")
        client.download(f"{path}/weights", file, lambda total: transfer("fetching", total))
        return _digested(number, file)


def _digested(number: int, weights: Path) -> TargetFile:
    from server.trust.successors import weights_target
    from shared.weights import WeightsReader

    with WeightsReader(weights) as reader:
        return weights_target(number, reader)


def _sign_here(ceremony: Ceremony, model: str, number: int, file: TargetFile) -> None:
    """Draft the list with the version in it, sign it with the keys at hand, and publish it.

    What else the server's own draft leaves out is left out here too: it knows what rollouts need.
    It cannot add anything.
    """
    from tuf.api.metadata import Targets

    from server.tables import now
    from server.trust.documents import Frame, read
    from server.trust.successors import targets_after

    published = ceremony.published.get(model)
    current = published.signed if published else None
    if current is not None and current.targets.get(file.path) == file:
        say(f"version {number} of {model} is released already")
        return
    answer = ceremony.client.get(f"/models/{quote(model, safe='')}/targets", add=number)
    wanted = read(answer["draft"].encode(), Targets).signed
    if wanted.targets.get(file.path) != file:
        raise BadCeremony("wrong_digest", f"the server lists version {number} as something else")
    dropped = sorted(set(current.targets if current else ()) - set(wanted.targets))
    packages = () if current else _packages(ceremony, wanted)
    purpose, frame = f"release {model} {number}", Frame(model, now())
    ceremony.desk.draft(
        ceremony.desk.targets_draft(model),
        purpose,
        lambda: targets_after(current, frame, [file], dropped, packages),
    )
    ceremony.finish(purpose)


def _packages(ceremony: Ceremony, wanted: Targets) -> list[PublicKey]:
    """The keys that sign packages of a model of which nothing was released before.

    Raises BadCeremony `other_packages_key`.
    """
    from server.trust.keys import keys_in
    from shared.metadata import PACKAGES

    role = wanted.get_delegated_role(PACKAGES)
    files = keys_in(ceremony.desk.folder)
    known = {file.keyid for file in files if file.role == PACKAGES}
    strange = set(role.keyids) - known
    if known and strange:
        told = f"the server says {', '.join(sorted(strange))}, this folder {', '.join(known)}"
        raise BadCeremony("other_packages_key", told)
    return [wanted.get_key(keyid) for keyid in role.keyids]
