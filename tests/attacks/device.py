"""A device that runs version 1 of a model, and all that an attacker could want to change on it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from shared.errors import WeftError
from tests.attacks.attack import Seen
from tests.edge_agent.plane import Bench, Plane, Shelf


class Device:
    """An agent on its state directory, the server that it asks, and its log."""

    def __init__(
        self, bench: Bench, plane: Plane, shelf: Shelf, log: pytest.LogCaptureFixture
    ) -> None:
        self.bench, self.plane, self.shelf, self._log = bench, plane, shelf, log
        self.offer(1, "full-1")
        assert self.bench.round() == []
        assert self.bench.in_use() == shelf.digests[1]

    @property
    def settings(self) -> dict[str, Any]:
        return self.bench.settings

    def offer(self, version: int, package: str | None) -> None:
        """Have the server want this version, by this package."""
        self.plane.offer(self.shelf, self.shelf.wanted(version, package, version))

    def round(self) -> Seen:
        """One round of the agent; what went wrong, if anything did, and what its log tells."""
        self._log.clear()
        try:
            codes = self.bench.round()
        except WeftError as error:
            return Seen(error.code, f"{error}\n{self._log.text}")
        return Seen(codes[0] if codes else None, self._log.text)

    def state(self) -> object:
        """The weights in its slots, which of them are in use, and who it is."""
        slots = self.bench.folder / "slots"
        held = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in slots.iterdir()}
        identity = (self.bench.config.state_dir / "identity.json").read_bytes()
        return held, (self.bench.folder / "current").readlink(), identity, self.bench.in_use()
