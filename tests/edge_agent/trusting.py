"""A device whose server, or whoever answers in its place, signs what it should not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.agent.loop import Agent
from edge_agent.agent.status import status
from edge_agent.journal import load_journal
from shared.metadata import ROLES, MetadataFile, pack
from tests.edge_agent.plane import MODEL, Bench, Plane, Shelf
from tests.signing import Repository

DAY = 86400.0
METADATA = "/device/v1/metadata"


@dataclass
class Field:
    """A device that runs version 1; its server wants others."""

    bench: Bench
    plane: Plane
    shelf: Shelf

    def __post_init__(self) -> None:
        self.want(1, "full-1")
        assert self.bench.round() == []
        self.plane.reports.clear()
        self.plane.requests.clear()
        self.plane.signs = False

    @property
    def repository(self) -> Repository:
        return self.plane.repository(MODEL)

    def want(self, version: int, package: str | None, *, rollback: bool = False) -> None:
        """Have the server order it, in a new assignment."""
        number = self.plane.generation + 1
        self.plane.offer(self.shelf, self.shelf.wanted(version, package, number, rollback=rollback))

    def files(self) -> dict[str, MetadataFile]:
        """What the server has published last."""
        return dict(self.repository.files)

    def answers(self, files: Mapping[str, MetadataFile]) -> None:
        """Whatever is asked from now on, these are answered, and all roots."""
        roots = [MetadataFile("root", n, c) for n, c in enumerate(self.plane.roots.files, 1)]
        packed = pack([*roots, *(files[role] for role in ROLES if role in files)])
        self.plane.forged = lambda _: packed

    def round(self) -> list[str]:
        """The codes of what goes wrong in a round of a new agent."""
        return self.bench.round()

    def on(self, agent: Agent) -> list[str]:
        """The same of an agent that runs."""
        return self.bench.go_on(agent)

    def state(self) -> object:
        """What must be as it was where something is refused."""
        journal = load_journal(self.bench.folder / "journal.json")
        assert journal is not None
        return self.bench.in_use(), self.bench.leftovers(), journal.slots

    def shown(self) -> Any:
        """What `edge-agent status` says of the model."""
        return status(self.bench.config)["models"][MODEL]

    def asked(self) -> int:
        """How often metadata were asked for."""
        return len(self.plane.asked(METADATA))
