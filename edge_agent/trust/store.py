"""The signed metadata that a device trusts, on its disk.

    <state_dir>/trust/pinned                     the root that it was told to believe first
    <state_dir>/trust/root.json                  the newest one: the same for all models
    <state_dir>/models/<model>/trust/<role>.json timestamp, snapshot, targets, packages

Each file is written once it is verified, and only where it changes; the newer root first, then what
it leads to. A crash leaves older files beside newer ones, which is what a device looks like that
has missed something; a file that is damaged or lost is asked for again.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from edge_agent import files
from edge_agent.trust.root import RootStore, read
from shared.metadata import ROLES, ROOT, TIMESTAMP

#: No device lives before this agent was made, whatever its clock says: 2026-11-01.
MADE_AT = 1793491200.0


class Store:
    """What is trusted of one model. Raises NoSpace."""

    def __init__(self, common: Path, own: Path, all_models: Path | None = None) -> None:
        """`common`: the directory of the root; `own`: that of the model's metadata.

        `all_models`: where those of all models lie, this one's among them.
        """
        self.root, self.own, self._all_models = RootStore(common), own, all_models

    @classmethod
    def of(cls, state_dir: Path, model: str) -> Store:
        """The one of a model, where an agent keeps it."""
        models = state_dir / "models"
        return cls(state_dir / "trust", models / model / "trust", models)

    def prepare(self) -> None:
        """Make the directory, and finish what a killed agent has begun there."""
        files.make_directory(self.own)
        files.clean(self.own)

    def settle(self) -> None:
        """Make durable what is there: an attempt before this one may have failed after a rename.

        What is there already is not written again.
        """
        files.clean(self.root.directory)
        files.clean(self.own)

    def path(self, role: str) -> Path:
        """Where the metadata of a role lie."""
        return self.root.path if role == ROOT else self.own / f"{quote(role, '')}.json"

    def read(self, role: str) -> bytes | None:
        """What is held of a role, if anything."""
        return read(self.path(role))

    def write(self, role: str, content: bytes) -> None:
        """Hold this, which is verified."""
        if self.read(role) != content:
            files.write(self.path(role), content)

    def held(self) -> dict[str, bytes]:
        """What is held and can be read, by role."""
        found = {role: self.read(role) for role in ROLES}
        return {role: content for role, content in found.items() if content and _says(content)}

    def versions(self) -> dict[str, int]:
        """The version of each that is held."""
        return {role: says.version for role, says in self._said().items()}

    def timestamps(self) -> list[bytes]:
        """The newest one of each model, by which it is known how late it is at least."""
        if self._all_models is None:
            return []
        models = sorted(files.matching(self._all_models, "*"))
        found = (read(model / "trust" / f"{TIMESTAMP}.json") for model in models)
        return [content for content in found if content]

    def expires_at(self) -> float | None:
        """Unix time at which the first of them expires; None where there are none of the model."""
        said = self._said()
        return min(each.expires for each in said.values()) if said.keys() - {ROOT} else None

    def _said(self) -> dict[str, _Says]:
        found = {role: _says(self.read(role)) for role in ROLES}
        return {role: says for role, says in found.items() if says}


def at_least(clock: float) -> float:
    """The Unix time that may be believed of a clock, which need not be set."""
    return max(clock, MADE_AT)


class _Says(NamedTuple):
    """What is needed here of a file. `expires`: Unix time."""

    version: int
    expires: float


def _says(content: bytes | None) -> _Says | None:
    """None where it is damaged, or not there."""
    try:
        signed = json.loads(content or b"")["signed"]
        return _Says(int(signed["version"]), _moment(signed["expires"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _moment(text: str) -> float:
    """RFC 3339 as Unix time; raises ValueError."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
