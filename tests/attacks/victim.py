"""What a device trusts of one model, asked by attackers to install something else.

The agent's own parts: its store, the verification by ngclient, and what an offer is held against.
What it would install is only noted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent.journal import Held, Target
from edge_agent.trust.released import check
from edge_agent.trust.store import Store
from edge_agent.trust.verify import verify
from shared.errors import WeftError
from shared.metadata import MetadataFile, pack
from shared.wire import PACKAGES_PATH
from tests.attacks.attack import Seen
from tests.signing import Repository, Roots

MODEL = "digits"
DAY = 86400.0


def digest(name: object) -> str:
    """Of weights, or of a package, that are nothing but a name."""
    return hashlib.sha256(str(name).encode()).hexdigest()


class Victim:
    """A device that runs version 1 of three; its server has a package from each to the next."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.roots = Roots()
        self.repository = Repository(MODEL, self.roots)
        self.store = Store.of(state_dir, MODEL)
        self.store.root.prepare()
        self.store.prepare()
        self.pin: str | None = self.roots.sha256
        self.clock = self.repository.now.timestamp()
        self.in_use: Held | None = None
        for number in (1, 2, 3):
            self.repository.release(number, digest(number))
            base = digest(number - 1) if number > 1 else None
            self.list(f"to {number}", base, digest(number))
        seen = self.install(1)
        assert seen == Seen(None), seen

    def list(self, package: str, base: str | None, result: str, **changes: Any) -> None:
        """Have the online keys list a package."""
        told = {"size": 1000, "base": base, "result": result, "method": "xor"} | changes
        self.repository.offer(digest(package), **told)

    def files(self) -> dict[str, MetadataFile]:
        """What the repository has published last."""
        return dict(self.repository.files)

    def offered(self, package: str, base: str | None) -> dict[str, Any]:
        """As a server offers it."""
        sha256 = digest(package)
        url = f"{PACKAGES_PATH}/{sha256}"
        return {"sha256": sha256, "size": 1000, "url": url, "base_digest": base, "method": "xor"}

    def target(self, version: int, **changes: Any) -> Target:
        """An order of the server, from the version in use or from nothing."""
        base = self.in_use.digest if self.in_use else None
        wanted = {
            "model": MODEL,
            "version": version,
            "weights_digest": digest(version),
            "packages": [self.offered(f"to {version}", base)],
        }
        return Target.model_validate(wanted | changes)

    def install(self, version: int, **changes: Any) -> Seen:
        """What the server itself answers, and an order."""
        answer = self.repository.answer(self.store.versions())
        return self._install(answer, self.target(version, **changes))

    def install_by(self, files: Sequence[MetadataFile], version: int = 2, **changes: Any) -> Seen:
        """What an attacker answers, and an order."""
        return self._install(pack(files), self.target(version, **changes))

    def _install(self, answer: bytes | None, target: Target) -> Seen:
        try:
            released = verify(self.store, MODEL, answer, self.pin, self.clock)
            check(target, released, self.in_use)
        except WeftError as error:
            return Seen(error.code, str(error))
        self.in_use = Held(digest=target.weights_digest, version=target.version)
        return Seen(None)

    def state(self) -> object:
        """What is in use, and whom the device has begun to believe."""
        return self.in_use, self.store.root.pinned
