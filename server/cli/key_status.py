"""What `weft keys status` tells: who signs what, where private keys lie, until when it holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from server.cli.ceremony import Signing
from server.cli.client import Client
from server.tables import now
from server.trust.ceremony import purpose_of
from server.trust.desk import Desk, load
from server.trust.keys import keys_in


def key_status(client: Client, folder: Path | None) -> dict[str, Any]:
    """The server's answer, with what lies in the folder of the offline keys."""
    told = client.get("/trust")
    desk = Desk(folder) if folder else None
    here = {f.keyid: f.path for f in keys_in(folder) if f.is_private} if folder else {}
    return {
        "root_version": told["root_version"],
        "root_sha256": told["root_sha256"],
        "keys": [{**key, "private": _where(key, here)} for key in told["keys"]],
        "documents": [_with_state(document) for document in told["documents"]],
        "drafts": _drafts(desk) if desk else [],
    }


def _where(key: Mapping[str, Any], here: Mapping[str, Path]) -> str:
    """Where the private key lies, as far as one can see from here."""
    places = [str(here[key["keyid"]])] if key["keyid"] in here else []
    return ", ".join(["the server", *places] if key["on_server"] else places) or "elsewhere"


def _with_state(document: Mapping[str, Any]) -> dict[str, Any]:
    left = datetime.fromisoformat(document["expires_at"]) - now()
    days = left.days
    return {**document, "state": f"{days} days" if days >= 0 else "EXPIRED"}


def _drafts(desk: Desk) -> list[dict[str, Any]]:
    signing = Signing(desk, yes=False)
    found = []
    for path in desk.drafts():
        lacking = signing.lacking([path])
        standing = "; ".join(lacking) or "signed: `weft keys publish`"
        purpose = purpose_of(load(path))
        found.append({"path": str(path), "purpose": purpose, "standing": standing})
    return found
