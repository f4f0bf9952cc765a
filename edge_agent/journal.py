"""The journal of one model: where its update stands, on disk before anything is done about it.

A journal is read once, at the start, and replaced as a whole before each effect. Where `current`
leads to during an update is not in it: the link on disk is the truth of that. `in_use` is what it
is put back to where somebody else has changed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from edge_agent import files
from edge_agent.config import StorageMode
from edge_agent.errors import AgentError
from shared.golden import Golden
from shared.wire import (
    DesiredModel,
    Digest,
    Fault,
    Health,
    ModelName,
    PackageOffer,
    State,
    TensorDigest,
)

FORMAT = 2

SlotName: TypeAlias = Literal["a", "b"]
#: Who wants an update: the server, a bundle brought by hand, or somebody who goes back by hand.
Origin: TypeAlias = Literal["server", "bundle", "hand"]


class Target(BaseModel):
    """Where an update leads to. `version` is null where the server has not named the weights."""

    model_config = ConfigDict(frozen=True)
    model: ModelName
    version: int | None
    weights_digest: Digest
    assignment: int | None = None
    attempt: int = 1
    packages: list[PackageOffer] = Field(
        default_factory=list, description="In order; none: a slot holds the weights already."
    )
    origin: Origin = "server"
    rollback: bool = Field(default=False, description="That it is an older version is meant.")
    verified: bool = Field(default=False, description="Signed metadata say that it is released.")

    @classmethod
    def of(cls, desired: DesiredModel, origin: Origin = "server") -> Target:
        """What the server, or a bundle, says."""
        shared = desired.model_dump(include=set(cls.model_fields))
        return cls(**shared, packages=desired.packages, origin=origin)


class Held(BaseModel):
    """The weights in a slot. `version` is null for weights that the server has not named yet."""

    model_config = ConfigDict(frozen=True)
    digest: Digest
    version: int | None = None
    assignment: int | None = Field(default=None, description="That which brought them.")
    used: bool = Field(default=False, description="They were in use, and not bad.")
    golden: Golden | None = Field(default=None, description="Samples that came with them.")


class Ended(BaseModel):
    """How an update ended; the journal's own time says when."""

    model_config = ConfigDict(frozen=True)
    state: State
    version: int | None
    error: Fault | None = None


class Journal(BaseModel):
    """What is persisted of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    state: State = "idle"
    target: Target | None = Field(default=None, description="What is being installed.")
    storage: StorageMode = Field(default="ab", description="Of the update under way.")
    slots: dict[SlotName, Held] = Field(
        default_factory=dict, description="A slot that is being written is not listed."
    )
    in_use: SlotName | None = Field(
        default=None, description="The slot that `current` leads to until the next swap."
    )
    fill: SlotName | None = Field(default=None, description="The slot that the target goes to.")
    previous: SlotName | None = Field(default=None, description="The slot to go back to.")
    before: Held | None = Field(default=None, description="The weights to go back to.")
    attempts: int = Field(default=0, description="Starts of this update without progress.")
    received: int = Field(default=0, description="Package bytes held at the last start.")
    damaged: int = Field(default=0, description="Times that the packages were damaged on the disk.")
    applied: int = Field(
        default=0, description="Packages of a chain that are applied; the last result is kept."
    )
    started_at: float = Field(default=0, description="Unix time of the offer.")
    golden: Golden | None = Field(default=None, description="Samples that came with the target.")
    health: Health = "unverified"
    error: Fault | None = None
    tensor_digests: dict[str, TensorDigest] | None = None
    settled: Target | None = Field(
        default=None, description="What was finished last, for good or bad; not tried again."
    )
    last: Ended | None = Field(default=None, description="What ended last, for people.")
    left: Held | None = Field(
        default=None, description="Weights given up by hand; the same assignment is refused."
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
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def persist_journal(path: Path, journal: Journal) -> None:
    """Replace the journal, durably."""
    files.write(path, journal.model_dump_json().encode())


def _from_format_1(old: dict[str, Any]) -> dict[str, Any]:
    """Targets were messages of the server; slots did not tell what brought their weights."""
    settled = old["settled"]
    slots = {name: _held_of_format_1(held, settled) for name, held in old["slots"].items()}
    return {
        **old,
        "format": 2,
        "target": _target_of_format_1(old["target"]),
        "settled": _target_of_format_1(settled),
        "slots": slots,
        "before": slots.get(old["previous"]),
    }


def _target_of_format_1(message: dict[str, Any] | None) -> dict[str, Any] | None:
    if message is None:
        return None
    named = ("model", "version", "weights_digest", "assignment", "attempt")
    packages = [message["package"]] if message["package"] else message["chain"] or []
    return {name: message[name] for name in named} | {"packages": packages}


def _held_of_format_1(held: dict[str, Any], settled: dict[str, Any] | None) -> dict[str, Any]:
    """What was finished last may have been bad; what lies beside it was in use before."""
    if settled and settled["weights_digest"] == held["digest"]:
        return {**held, "assignment": settled["assignment"]}
    return {**held, "used": True}


#: From each older format to the next; an agent reads all journals of the agents before it.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_format_1}
