"""The journal of one model: where its update stands, on disk before anything is done about it.

A journal is read once, at the start, and replaced as a whole before each effect. What `current`
points at is not in it: the link on disk is the truth of that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent import files
from edge_agent.errors import AgentError
from shared.wire import DesiredModel, Digest, Fault, Health, State, TensorDigest

FORMAT = 1
#: From each older format to the next; an agent reads all journals of the agents before it.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

SlotName: TypeAlias = Literal["a", "b"]


class Held(BaseModel):
    """The weights in a slot. `version` is null for weights that the server has not named yet."""

    model_config = ConfigDict(frozen=True)
    digest: Digest
    version: int | None = None


class Journal(BaseModel):
    """What is persisted of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    state: State = "idle"
    target: DesiredModel | None = Field(default=None, description="What is being installed.")
    slots: dict[SlotName, Held] = Field(
        default_factory=dict, description="A slot that is being written is not listed."
    )
    fill: SlotName | None = Field(default=None, description="The slot that the target goes to.")
    previous: SlotName | None = Field(default=None, description="The slot to go back to.")
    attempts: int = Field(default=0, description="Starts of this update without progress.")
    received: int = Field(default=0, description="Package bytes held at the last start.")
    applied: int = Field(
        default=0, description="Packages of a chain that are applied; the last result is kept."
    )
    started_at: float = Field(default=0, description="Unix time of the offer.")
    health: Health = "unverified"
    error: Fault | None = None
    tensor_digests: dict[str, TensorDigest] | None = None
    settled: DesiredModel | None = Field(
        default=None, description="What was finished last, for good or bad; not tried again."
    )


def load_journal(path: Path) -> Journal | None:
    """The journal at `path`; None where there is none, or where it cannot be read.

    An unreadable journal is not fatal: the slots say what the device holds. Raises AgentError
    `state_too_new` where a later agent has written it.
    """
    try:
        fields = json.loads(path.read_bytes())
        found = fields["format"]
        if type(found) is int and found > FORMAT:
            raise AgentError("state_too_new", f"{path} has format {found}, known is {FORMAT}")
        while fields["format"] != FORMAT:
            fields = MIGRATIONS[fields["format"]](fields)
        return Journal.model_validate(fields)
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def persist_journal(path: Path, journal: Journal) -> None:
    """Replace the journal, durably."""
    files.write(path, journal.model_dump_json().encode())
