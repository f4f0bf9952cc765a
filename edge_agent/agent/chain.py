"""The packages of one update, one or several: each starts from what the one before it gives.

Only what the last one gives goes to a slot. The results in between lie beside the slots, in files
that nothing ever uses but the next package; each is held against the digest that it must have, and
removed once the next one is there, so that at most two of them take space at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent import trust
from edge_agent.api import DeviceApi
from edge_agent.download import received
from edge_agent.errors import AgentError
from edge_agent.heavy import Heavy, Inspection
from edge_agent.journal import Journal, Target
from edge_agent.link import Link
from edge_agent.slots import Storage


@dataclass(frozen=True)
class Chain:
    """What is between the weights that a device holds and those that it should run."""

    slots: Storage
    target: Target
    heavy: Heavy

    def __len__(self) -> int:
        return len(self.target.packages)

    @property
    def size(self) -> int:
        """Bytes of all packages."""
        return sum(offer.size for offer in self.target.packages)

    @property
    def received(self) -> int:
        """Bytes of them that are here."""
        return sum(received(self._file(number)) for number in range(len(self)))

    @property
    def missing(self) -> int:
        """Bytes of them that are not here yet."""
        return self.size - self.received

    @property
    def sha256s(self) -> set[str]:
        """What the packages are known by."""
        return {offer.sha256 for offer in self.target.packages}

    def check(self) -> None:
        """Raise AgentError `broken_chain` where one package does not start from another."""
        offers = self.target.packages
        if len(offers) > self.slots.max_chain or any(o.base_digest is None for o in offers[1:]):
            told = f"{len(offers)} packages that do not follow one another"
            raise AgentError("broken_chain", told)

    def obtain(self, api: DeviceApi, link: Link, until: float) -> bool:
        """Download a slice of what is missing; True once all is here. See `trust.obtain`."""
        return all(
            trust.obtain(api, offer, self._file(number), link, until)
            for number, offer in enumerate(self.target.packages)
        )

    def inspect(self, base: Path | None) -> Inspection:
        """What the packages say; raises TrustError, BadPackage."""
        packages = [(self._file(number), self._promise(number)) for number in range(len(self))]
        return self.heavy.inspect(packages, base)

    def applied(self, noted: int) -> int:
        """How many packages need not be applied again.

        `noted` were; but what the last of them gave must still be there, and sound.
        """
        if noted and self.slots.stage_digest(noted - 1) == self._promise(noted - 1).result:
            return noted
        self.slots.drop_stages()
        return 0

    def apply(self, number: int, base: Path | None, journal: Journal) -> None:
        """Apply one package: from `base` or the result before it, to the next or to the slot."""
        source = self.slots.stage(number - 1) if number else base
        package, promise = self._file(number), self._promise(number)
        if number == len(self) - 1:
            self.slots.make(journal, package, promise, source)
        else:
            self.heavy.apply(package, promise, source, self.slots.stage(number))

    def _promise(self, number: int) -> trust.Promise:
        return trust.promises(self.target)[number]

    def _file(self, number: int) -> Path:
        return self.slots.package(self.target.packages[number].sha256)
